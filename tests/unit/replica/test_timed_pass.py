"""A timed pass of a generator leaves it free for the next."""

from __future__ import annotations

from serving.replica.timed_pass import timed_pass
from tests.unit.replica.generator.generating import replica


async def test_passes_of_a_generator_may_follow_each_other_at_once() -> None:
    run = timed_pass("generation", replica("Hello", "Hello", "Hello").backend)
    assert all([await run() >= 0 for _ in range(3)])
