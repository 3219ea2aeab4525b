"""Finds out whether a variant is slower than its reference, once both have been measured."""

from __future__ import annotations

import asyncio
import logging

from serving.artifacts import Artifact, ArtifactRequest, ArtifactStore, key_of
from serving.artifacts.pass_times import read_pass_times
from serving.artifacts.slowness import slowness
from serving.errors import QuantserveError

logger = logging.getLogger("ray.serve.quantserve")

LOOK_S = 15.0
"""Between two looks whether the reference has been measured."""


class SlownessWatch:
    """Compares what was measured of a variant with what was measured of its reference.

    Args:
        name: The variant's, for the log.
        artifact: Its own.
        reference: What the reference's artifact is made of.
        store: Where both are.
        draft: What proposes tokens to the variant; None if nothing does.

    Attributes:
        remark: A sentence, if the variant is slower; None if it is not, or not yet known.
    """

    def __init__(
        self,
        name: str,
        artifact: Artifact,
        reference: ArtifactRequest,
        store: ArtifactStore,
        draft: Artifact | None = None,
    ) -> None:
        self._name, self._artifact, self._draft = name, artifact, draft
        self._reference, self._store = reference, store
        self.remark: str | None = None

    async def compare(self) -> None:
        """Wait for the reference's times, and warn if the variant's are longer.

        Nothing is found of a reference whose checkpoint or artifact cannot be read: its own
        replica says so.
        """
        try:
            reference = await self._measured_reference()
        except QuantserveError:
            return
        found = slowness(self._artifact, reference, self._reference.variant, self._draft)
        self.remark = found
        if found is not None:
            logger.warning("%s is %s", self._name, found)

    async def _measured_reference(self) -> Artifact:
        key = await asyncio.to_thread(key_of, self._reference, self._store)
        while True:
            found = await asyncio.to_thread(self._store.look_up, key.id)
            if found is not None and read_pass_times(found) is not None:
                return found
            await asyncio.sleep(LOOK_S)
