"""The way from a replica to the quality process."""

from __future__ import annotations

import asyncio
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from serving.seams import QUALITY_APPLICATION, Sample


class QualityProcess:
    """The quality process over its handle, which is looked up with the first sample."""

    def __init__(self) -> None:
        self._finding: asyncio.Task[DeploymentHandle[Any]] | None = None

    async def send(self, sample: Sample) -> None:
        """Hand a sample over; raises whatever Ray Serve raises where nobody is there."""
        handle = await self._handle()
        await handle.offer.remote(sample)

    async def _handle(self) -> DeploymentHandle[Any]:
        # Asks the controller, and waits for it. One look-up, and one thread, at a time, however
        # often the caller loses patience meanwhile.
        if self._finding is None:
            self._finding = asyncio.create_task(
                asyncio.to_thread(serve.get_app_handle, QUALITY_APPLICATION)
            )
        try:
            return await asyncio.shield(self._finding)
        except Exception:
            self._finding = None
            raise
