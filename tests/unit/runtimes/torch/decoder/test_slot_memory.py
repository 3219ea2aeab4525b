"""What a slot is told to forget reads as zeros, takes no memory, and is all that is lost."""

from __future__ import annotations

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serving.runtimes.torch.decoder.slot_memory import LEAST_RETURNED_BYTES, SlotMemory

LAYERS, SLOTS, TOKENS = 2, 3, 500
SHAPE = (2, 3, 20)


@given(
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, SLOTS - 1),
    st.tuples(st.integers(0, TOKENS), st.integers(0, TOKENS)).map(sorted),
)
def test_it_forgets_these_tokens_and_no_others(
    dtype: torch.dtype, slot: int, tokens: list[int]
) -> None:
    memory = SlotMemory(LAYERS, SLOTS, TOKENS, SHAPE, dtype)
    assert memory.numbers.shape == (LAYERS, SLOTS, TOKENS, *SHAPE)
    assert memory.numbers.dtype == dtype
    assert not memory.numbers.any()
    expected = torch.randn(memory.numbers.shape, generator=torch.Generator().manual_seed(0))
    memory.numbers[:] = expected = expected.to(dtype)
    start, end = tokens
    memory.forget(slot, start, end)
    expected = expected.clone()
    expected[:, slot, start:end] = 0
    assert torch.equal(memory.numbers, expected)


@pytest.mark.parametrize("share", [0.25, 1])
def test_what_is_forgotten_takes_no_memory(share: float) -> None:
    memory = SlotMemory(4, 2, 20_000, SHAPE, torch.float32)
    size = memory.numbers.numel() * 4
    assert size / 8 > 100 * LEAST_RETURNED_BYTES
    process = psutil.Process()
    empty = process.memory_info().rss
    memory.numbers.fill_(1)
    full = process.memory_info().rss
    assert full - empty > 0.9 * size
    for slot in range(2):
        memory.forget(slot, round(20_000 * (1 - share)), 20_000)
    assert full - process.memory_info().rss > 0.9 * share * size
