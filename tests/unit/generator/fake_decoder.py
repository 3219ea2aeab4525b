"""A decoder whose logits depend on every token in the cache, and on nothing else."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from serving.seams import DeviceName, Footprint, Segment
from tests.unit.fakes.encoder import FOOTPRINT
from tests.unit.fakes.waiting import MAX_WAIT_S
from tests.unit.generator.reference import NEVER_GENERATED, VOCABULARY, logits_after

POISON = NEVER_GENERATED
"""After a text with this token all logits are NaN."""


class FakeDecoder:
    """Answers ``logits_after`` what its cache holds, be it right or wrong.

    A test can hold its steps at a gate and make them fail.
    """

    device: DeviceName = "cpu"
    kv_cache_bytes = 1_000

    def __init__(self, num_slots: int = 4, slot_tokens: int = 64) -> None:
        self.num_slots, self.slot_tokens = num_slots, slot_tokens
        self.cache = np.full((num_slots, slot_tokens), -1)
        self.steps: list[list[Segment]] = []
        self.threads = {threading.current_thread()}
        self.failures: list[Exception] = []
        self.cores: list[tuple[int, ...]] = []
        self.held, self.gate = threading.Event(), threading.Event()
        self.holds: Callable[[Sequence[Segment]], bool] = lambda segments: False

    def hold(self, holds: Callable[[Sequence[Segment]], bool]) -> None:
        """Let a step that is held run, and hold the next one that ``holds`` accepts.

        It sets ``held`` and waits for ``release``, or for the next ``hold``.
        """
        gate, self.gate = self.gate, threading.Event()
        self.holds = holds
        self.held.clear()
        gate.set()

    def release(self) -> None:
        """Let steps run."""
        self.holds = lambda segments: False
        self.gate.set()

    def use_cores(self, cores: Sequence[int]) -> None:
        self.cores.append(tuple(cores))

    def step(self, segments: Sequence[Segment]) -> NDArray[np.float32]:
        self.steps.append(list(segments))
        self.threads.add(threading.current_thread())
        if self.holds(segments):
            gate = self.gate
            self.held.set()
            assert gate.wait(MAX_WAIT_S)
        if self.failures:
            raise self.failures.pop(0)
        assert len({segment.slot for segment in segments}) == len(segments)
        rows = [np.empty((0, VOCABULARY), np.float32)]
        for segment in segments:
            end = segment.start + len(segment.token_ids)
            cache = self.cache[segment.slot]
            cache[segment.start : end] = segment.token_ids
            assert 0 <= segment.num_logits <= len(segment.token_ids)
            lengths = range(end - segment.num_logits + 1, end + 1)
            rows += [_logits(cache[:length])[None] for length in lengths]
        return np.concatenate(rows)

    def footprint(self) -> Footprint:
        return FOOTPRINT


def _logits(tokens: NDArray[np.int64]) -> NDArray[np.float32]:
    if POISON in tokens:
        return np.full(VOCABULARY, np.nan, np.float32)
    return logits_after(tokens.tolist())
