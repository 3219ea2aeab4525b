"""Which blocks of the cache hold which tokens of which slot. No numbers, no OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """One block's keys and values shall be those of another."""

    source: int
    target: int


class BlockTables:
    """A table of blocks for each slot; slots whose texts begin alike share the blocks of that.

    There are as many blocks as all slots could fill with texts of their own, so that none is ever
    lacking.

    Args:
        num_slots: How many slots there are.
        slot_tokens: Most tokens of each.
        block_tokens: Tokens of a block.
    """

    def __init__(self, num_slots: int, slot_tokens: int, block_tokens: int) -> None:
        self._slot_tokens, self._block_tokens = slot_tokens, block_tokens
        self.num_blocks = num_slots * self._count(slot_tokens)
        self._tables: list[list[int]] = [[] for _ in range(num_slots)]
        # The lowest come first and are taken again first: memory that was never touched is free.
        self._free = list(reversed(range(self.num_blocks)))
        self._num_users = [0] * self.num_blocks

    def blocks(self, slot: int) -> Sequence[int]:
        """The blocks of a slot, in the order of its tokens."""
        return self._tables[slot]

    def make_room(self, slot: int, start: int, end: int) -> BlockCopy | None:
        """Have a slot keep its tokens before ``start`` and get place for those up to ``end``.

        Returns:
            What must be copied first: the block of the token at ``start``, if others read it, too.

        Raises:
            IndexError: A slot has not so many tokens; nothing has changed.
        """
        if end > self._slot_tokens:
            raise IndexError(f"{end} tokens; a slot has {self._slot_tokens}")
        table = self._tables[slot]
        self._cut(slot, self._count(start))
        copy = None
        if start % self._block_tokens and self._num_users[table[-1]] > 1:
            copy = BlockCopy(table[-1], self._take())
            self._release(table[-1])
            table[-1] = copy.target
        while len(table) < self._count(end):
            table.append(self._take())
        return copy

    def share(self, source: int, target: int, num_tokens: int) -> None:
        """Have the slot ``target`` begin with the first tokens of ``source``, and nothing else."""
        self._cut(target, 0)
        for block in self._tables[source][: self._count(num_tokens)]:
            self._num_users[block] += 1
            self._tables[target].append(block)

    def _count(self, tokens: int) -> int:
        return -(-tokens // self._block_tokens)

    def _cut(self, slot: int, num_blocks: int) -> None:
        table = self._tables[slot]
        while len(table) > num_blocks:
            self._release(table.pop())

    def _take(self) -> int:
        block = self._free.pop()
        self._num_users[block] = 1
        return block

    def _release(self, block: int) -> None:
        self._num_users[block] -= 1
        if self._num_users[block] == 0:
            self._free.append(block)
