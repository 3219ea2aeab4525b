"""The remote backend of an encoder."""

from __future__ import annotations

from typing import cast

from serving.gateway.replica_calls import ReplicaCalls
from serving.seams import Description, InferenceRequest, Outcome


class RemoteEncoder:
    """Has a replica answer.

    Args:
        calls: Reach the variant.
    """

    def __init__(self, calls: ReplicaCalls) -> None:
        self._calls = calls

    async def infer(self, request: InferenceRequest) -> Outcome:
        """Answer every input of ``request``; see ``EncoderBackend.infer``."""
        return cast(Outcome, await self._calls.ask("infer", request))

    async def describe(self) -> Description:
        """Say what one of the replicas holds; see ``EncoderBackend.describe``."""
        return await self._calls.describe()
