"""What an engine is, where it runs and what it occupies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DeviceName = Literal["cpu", "cuda"]

EngineKind = Literal["encoder", "generator"]
"""``encoder`` answers each input with one row, ``generator`` with a stream of tokens."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What an engine occupies, in bytes.

    Attributes:
        weights_bytes: Every parameter and buffer in the packed size that the runtime keeps.
        resident_bytes: Resident memory of the process now, of which pages that several processes
            have count by its share (on CUDA: allocated by torch).
        private_bytes: The part of it that no other process can share: without the pages of mapped
            files, weights of the artifact and libraries alike (on CUDA: the same).
        peak_bytes: The largest that ``resident_bytes`` has been (on CUDA: torch's peak).
    """

    weights_bytes: int
    resident_bytes: int
    private_bytes: int
    peak_bytes: int
