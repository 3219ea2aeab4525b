"""The backends of the gateway: every variant, wherever its replicas are."""

from __future__ import annotations

from serving.gateway.cluster import Cluster
from serving.gateway.latencies import Latencies
from serving.gateway.remote_encoder import RemoteEncoder
from serving.gateway.remote_generator import RemoteGenerator
from serving.gateway.replica_calls import ReplicaCalls
from serving.gateway.timed_backend import TimedEncoder, TimedGenerator
from serving.seams import EncoderBackend, GeneratorBackend, VariantStatus


class RemoteVariants:
    """``Backends`` of the gateway.

    Args:
        cluster: Where the replicas are.
        latencies: Learns how long requests take; None if nobody wants to know.
    """

    def __init__(self, cluster: Cluster, latencies: Latencies | None = None) -> None:
        self._cluster = cluster
        self._latencies = latencies

    def encoder(self, model: str, variant: str) -> EncoderBackend:
        """Return a backend for the variant; see ``Backends.encoder``."""
        remote = RemoteEncoder(ReplicaCalls(self._cluster, model, variant))
        if self._latencies is None:
            return remote
        return TimedEncoder(remote, self._latencies, model, variant)

    def generator(self, model: str, variant: str) -> GeneratorBackend:
        """Return a backend for the variant; see ``Backends.generator``."""
        remote = RemoteGenerator(ReplicaCalls(self._cluster, model, variant))
        if self._latencies is None:
            return remote
        return TimedGenerator(remote, self._latencies, model, variant)

    async def statuses(self) -> list[VariantStatus]:
        """State of every configured variant."""
        return await self._cluster.statuses()
