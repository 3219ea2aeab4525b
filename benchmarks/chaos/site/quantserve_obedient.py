"""A runtime of another package: torch's encoders, which misbehave as long as a file says how.

The file is named by ``CHAOS_CONDUCT``; it says ``hang``, ``nan``, ``slow``, ``unopenable``, or
nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.runtimes.torch.runtime import RUNTIME as TORCH
from serving.seams import Arrays, DeviceName, EncoderEngine, Footprint, OpenRequest

CONDUCT = "CHAOS_CONDUCT"
SLOWER = 10
HANG_POLL_S = 0.1


class Obedient:
    """An encoder that does as it is told.

    Args:
        engine: Computes.
        conduct: The file.
    """

    def __init__(self, engine: EncoderEngine, conduct: Path) -> None:
        self._engine = engine
        self._conduct = conduct

    @property
    def device(self) -> DeviceName:
        return self._engine.device

    def use_cores(self, cores: Sequence[int]) -> None:
        self._engine.use_cores(cores)

    def forward(self, inputs: Arrays) -> NDArray[np.float32]:
        while self._conduct.read_text() == "hang":
            time.sleep(HANG_POLL_S)
        begun = time.perf_counter()
        rows = self._engine.forward(inputs)
        match self._conduct.read_text():
            case "nan":
                return rows * np.float32("nan")
            case "slow":
                time.sleep((SLOWER - 1) * (time.perf_counter() - begun))
        return rows

    def footprint(self) -> Footprint:
        return self._engine.footprint()


def open_encoder(request: OpenRequest) -> EncoderEngine:
    """Open torch's engine, and stand before it."""
    conduct = Path(os.environ[CONDUCT])
    if conduct.read_text() == "unopenable":
        raise MemoryError("there is no room, for now")
    return Obedient(TORCH.open_encoder(request), conduct)


RUNTIME = replace(
    TORCH,
    summary="torch's encoders, which misbehave when they are told to",
    open_encoder=open_encoder,
    open_generator=None,
    open_decoder=None,
)
