"""What a load test was measured under."""

from __future__ import annotations

import os

import pytest

from loadtests.conditions import conditions, priority


@pytest.mark.parametrize(
    ("niceness", "words"),
    [
        (-15, "before other processes (niceness -15)"),
        (0, "as any other process (niceness 0)"),
        (7, "after other processes (niceness 7)"),
    ],
)
def test_a_niceness_is_said_in_words(niceness, words) -> None:
    assert priority(niceness) == words


def test_the_priority_is_this_process_s() -> None:
    assert conditions()["priority"] == priority(os.nice(0))
