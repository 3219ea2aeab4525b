"""How full a gateway is."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from serving.metrics import series
from serving.metrics.registered import gauge


class GatewayMetrics:
    """Says how many requests a gateway has under way, and how many it may have.

    Args:
        replica: The gateway's name.
        limit: Requests beyond it are refused.
    """

    def __init__(self, replica: str, limit: int) -> None:
        self.registry = CollectorRegistry()
        self._under_way = gauge(series.GATEWAY_REQUESTS, self.registry).labels(replica)
        gauge(series.GATEWAY_LIMIT, self.registry).labels(replica).set(limit)

    def observe(self, under_way: int) -> None:
        """Record how many there are while the page is made."""
        self._under_way.set(under_way)
