"""Matrices of tests: enough pairs to meet every value, or every pair with ``TEST_ALL=1``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import product
from typing import TypeVar

First = TypeVar("First")
Second = TypeVar("Second")


def pairs(first: Iterable[First], second: Iterable[Second]) -> list[tuple[First, Second]]:
    """Pairs for ``parametrize`` in which every value occurs: a diagonal, which starts anew.

    ``make test-all`` takes the whole product.
    """
    rows, columns = list(first), list(second)
    if takes_all():
        return list(product(rows, columns))
    length = max(len(rows), len(columns))
    return [(rows[n % len(rows)], columns[n % len(columns)]) for n in range(length)]


def takes_all() -> bool:
    """Whether every pair is wanted."""
    return os.environ.get("TEST_ALL") == "1"
