"""The way from a replica to the quality process."""

from __future__ import annotations

from serving.calls import Application, replica_call
from serving.seams import QUALITY_APPLICATION, Sample


class QualityProcess:
    """The quality process over its handle, which is looked up with the first sample."""

    def __init__(self) -> None:
        self._application = Application(QUALITY_APPLICATION)

    async def send(self, sample: Sample) -> None:
        """Hand a sample over; raises whatever Ray Serve raises where nobody is there."""
        handle = await self._application.handle()
        with replica_call():
            await handle.offer.remote(sample)
