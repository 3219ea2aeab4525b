"""The way from a replica to the quality process."""

from __future__ import annotations

from serving.seams import QUALITY_APPLICATION, Sample
from serving.serve_application import Application, replica_call


class QualityProcess:
    """The quality process over its handle, which is looked up with the first sample."""

    def __init__(self) -> None:
        self._application = Application(QUALITY_APPLICATION)

    async def send(self, sample: Sample) -> None:
        """Hand a sample over; raises whatever Ray Serve raises where nobody is there."""
        handle = await self._application.handle()
        with replica_call():
            await handle.offer.remote(sample)
