"""What an engine occupies, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DeviceName = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Footprint:
    """What an engine occupies, in bytes.

    Attributes:
        weights_bytes: Every parameter and buffer in its packed size.
        disk_bytes: What the variant takes when its tensors are saved as they are: without the
            padding of kernels, and without the file's own headers (some 300 bytes a tensor).
        resident_bytes: Resident memory of the process now (on CUDA: allocated by torch).
        peak_bytes: The largest it has been (on CUDA: torch's peak allocation).
    """

    weights_bytes: int
    disk_bytes: int
    resident_bytes: int
    peak_bytes: int
