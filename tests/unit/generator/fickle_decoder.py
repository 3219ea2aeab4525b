"""A decoder that agrees with ``FakeDecoder`` after most texts, and after the others on nothing."""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.seams import Segment
from tests.unit.generator.fake_decoder import FakeDecoder


class FickleDecoder(FakeDecoder):
    """Turns the logits around after so many of a hundred texts."""

    def __init__(self, num_slots: int = 4, slot_tokens: int = 64, percent: int = 30) -> None:
        super().__init__(num_slots, slot_tokens)
        self.percent = percent

    def step(self, segments: Sequence[Segment]) -> NDArray[np.float32]:
        rows = super().step(segments)
        hashes = [zlib.crc32(row.tobytes()) % 100 for row in rows]
        turned = np.array(hashes, np.int64) < self.percent
        rows[turned] = rows[turned, ::-1]
        return rows
