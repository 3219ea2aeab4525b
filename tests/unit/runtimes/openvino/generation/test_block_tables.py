"""Blocks against a plain record of what each slot should read."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.runtimes.openvino.generation.block_tables import BlockCopy, BlockTables

NUM_SLOTS, SLOT_TOKENS, BLOCK_TOKENS = 3, 10, 4


@dataclass
class Cache:
    """What is written where: every token is a number of its own."""

    tables: BlockTables = field(
        default_factory=lambda: BlockTables(NUM_SLOTS, SLOT_TOKENS, BLOCK_TOKENS)
    )
    written: int = 0

    def __post_init__(self) -> None:
        self.blocks: list[list[int | None]] = [
            [None] * BLOCK_TOKENS for _ in range(self.tables.num_blocks)
        ]
        self.texts: list[list[int]] = [[] for _ in range(NUM_SLOTS)]

    def write(self, slot: int, start: int, count: int) -> BlockCopy | None:
        copy = self.tables.make_room(slot, start, start + count)
        if copy is not None:
            self.blocks[copy.target] = list(self.blocks[copy.source])
        self.texts[slot] = self.texts[slot][:start]
        for place in range(start, start + count):
            self.written += 1
            block = self.tables.blocks(slot)[place // BLOCK_TOKENS]
            self.blocks[block][place % BLOCK_TOKENS] = self.written
            self.texts[slot].append(self.written)
        return copy

    def share(self, source: int, target: int, count: int) -> None:
        self.tables.share(source, target, count)
        self.texts[target] = self.texts[source][:count]

    def read(self, slot: int) -> list[int | None]:
        text = [number for block in self.tables.blocks(slot) for number in self.blocks[block]]
        return text[: len(self.texts[slot])]


@given(st.data())
def test_every_slot_reads_what_it_wrote_or_was_given(data: st.DataObject) -> None:
    cache, slots = Cache(), st.integers(0, NUM_SLOTS - 1)
    two_slots = st.permutations(range(NUM_SLOTS)).map(lambda order: order[:2])
    for _ in range(30):
        if data.draw(st.booleans()):
            slot = data.draw(slots)
            start = data.draw(st.integers(0, min(len(cache.texts[slot]), SLOT_TOKENS - 1)))
            cache.write(slot, start, data.draw(st.integers(1, SLOT_TOKENS - start)))
        else:
            source, target = data.draw(two_slots)
            cache.share(source, target, data.draw(st.integers(0, len(cache.texts[source]))))
        assert [cache.read(slot) for slot in range(NUM_SLOTS)] == cache.texts


def test_a_shared_beginning_takes_no_further_blocks() -> None:
    cache = Cache()
    cache.write(0, 0, 8)
    cache.share(0, 1, 8)
    assert cache.tables.blocks(1) == cache.tables.blocks(0)
    assert cache.write(1, 8, 2) is None, "the next token begins a block"
    assert list(cache.tables.blocks(1)[:2]) == list(cache.tables.blocks(0))


def test_a_block_that_both_go_on_in_is_copied_once() -> None:
    cache = Cache()
    cache.write(0, 0, 6)
    cache.share(0, 1, 6)
    before = list(cache.tables.blocks(0))
    copy = cache.write(1, 6, 1)
    assert copy is not None
    assert copy.source == before[1]
    assert list(cache.tables.blocks(0)) == before
    assert cache.write(0, 6, 1) is None, "nobody else reads it any more"
    assert cache.write(1, 7, 1) is None


def test_what_is_left_is_taken_again() -> None:
    cache = Cache()
    cache.write(0, 0, 10)
    first = list(cache.tables.blocks(0))
    cache.write(0, 0, 1)
    cache.write(1, 0, 10)
    assert {*cache.tables.blocks(0), *cache.tables.blocks(1)} <= {*range(4)}
    assert {*first} <= {*range(4)}, "memory that was never touched stays so"


def test_a_slot_has_no_more_tokens_than_it_may() -> None:
    cache = Cache()
    cache.write(0, 0, 10)
    with pytest.raises(IndexError, match="11 tokens; a slot has 10"):
        cache.tables.make_room(0, 5, 11)
    assert cache.read(0) == cache.texts[0]
