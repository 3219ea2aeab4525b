"""A small real encoder: every answer depends on the text and on the name of the variant."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidField
from serving.seams import (
    NO_OPTIONS,
    AnswerOptions,
    Arrays,
    DeviceName,
    Footprint,
    Head,
    Input,
    Item,
    Pooled,
    Timings,
)
from tests.unit.fakes.waiting import MAX_WAIT_S

WIDTH = 8


LABELS = ("negative", "positive")


TIMINGS = Timings(queue=0.001, tokenize=0.002, core_wait=0.003, forward=0.004, total=0.016)


FOOTPRINT = Footprint(weights_bytes=100, resident_bytes=200, private_bytes=150, peak_bytes=300)


def row_of(token_ids: Sequence[int], variant: str, width: int = WIDTH) -> NDArray[np.float32]:
    """The row that the fake engine of ``variant`` answers for one text."""
    seed = zlib.crc32(f"{variant} {[int(token) for token in token_ids]}".encode())
    return np.random.default_rng(seed).random(width, dtype=np.float32)


class FakeEngine:
    """Answers ``row_of``; a test can hold its passes at ``gate`` and make them fail."""

    device: DeviceName = "cpu"

    def __init__(self, variant: str = "fp32", width: int = WIDTH) -> None:
        self.variant, self.width = variant, width
        self.batches: list[list[list[int]]] = []
        self.failures: list[Exception] = []
        self.cores: list[tuple[int, ...]] = []
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def use_cores(self, cores: Sequence[int]) -> None:
        self.cores.append(tuple(cores))

    def forward(self, inputs: Arrays) -> NDArray[np.float32]:
        rows = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        self.batches.append([ids[mask == 1].tolist() for ids, mask in rows])
        texts = self.batches[-1]
        self.entered.set()
        assert self.gate.wait(MAX_WAIT_S)
        if self.failures:
            raise self.failures.pop(0)
        return np.stack([row_of(ids, self.variant, self.width) for ids in texts])

    def footprint(self) -> Footprint:
        return FOOTPRINT


@dataclass(frozen=True, slots=True)
class FakeItem:
    """Token ids of one input."""

    token_ids: tuple[int, ...]

    @property
    def cost(self) -> int:
        return len(self.token_ids)


class FakeTask:
    """One token per byte, between the tokens 1 and 2; the texts of a pair have a 3 between them."""

    head: Head = Pooled()
    max_tokens = 40

    def __init__(self, labels: tuple[str, ...] = ()) -> None:
        self.labels, self.width = labels, len(labels) or WIDTH
        self.prepared_in: list[threading.Thread] = []

    def prepare(
        self, inputs: Sequence[Input], truncate: bool, options: AnswerOptions = NO_OPTIONS
    ) -> list[Item]:
        self.prepared_in.append(threading.current_thread())
        prompt = (options.prompt_name or "").encode()
        texts = [
            prompt + asked.encode()
            if isinstance(asked, str)
            else b"\x03".join(map(str.encode, asked))
            for asked in inputs
        ]
        if not truncate and any(len(text) + 2 > self.max_tokens for text in texts):
            raise InvalidField("a text is too long", param="input")
        return [FakeItem((1, *text[: self.max_tokens - 2], 2)) for text in texts]

    def prepare_ids(self, inputs: Sequence[Sequence[int]], truncate: bool) -> list[Item]:
        return [FakeItem(tuple(ids)) for ids in inputs]

    def collate(self, items: Sequence[Item]) -> Arrays:
        shape = len(items), max(item.cost for item in items)
        input_ids, attention_mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, item in enumerate(items):
            assert isinstance(item, FakeItem)
            input_ids[row, : item.cost] = item.token_ids
            attention_mask[row, : item.cost] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def check_options(self, options: AnswerOptions) -> None:
        dimensions = options.dimensions
        if dimensions is not None and dimensions > self.width:
            raise InvalidField(f"dimensions is {dimensions}", param="dimensions")
        if options.prompt_name not in (None, "query"):
            raise InvalidField("this model has query", param="prompt_name")

    def decode(
        self, rows: NDArray[np.float32], options: AnswerOptions = NO_OPTIONS
    ) -> NDArray[np.float32]:
        return rows[:, : options.dimensions]
