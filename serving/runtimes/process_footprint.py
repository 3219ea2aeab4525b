"""What the process of an engine on the CPU occupies, in bytes."""

from __future__ import annotations

from serving.machine.process_memory import peak_resident_bytes, private_bytes, resident_bytes
from serving.seams import Footprint


def measure_process(weights_bytes: int) -> Footprint:
    """Return what the process occupies now around weights of a known size."""
    resident = resident_bytes()
    return Footprint(
        weights_bytes=weights_bytes,
        resident_bytes=resident,
        private_bytes=private_bytes(),
        # Read one after the other, and pages are shared otherwise meanwhile.
        peak_bytes=max(peak_resident_bytes(), resident),
    )
