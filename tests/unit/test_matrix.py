from __future__ import annotations

from itertools import product

import pytest

from tests.matrix import pairs


@pytest.mark.parametrize(("rows", "columns"), [(5, 3), (3, 5), (4, 2), (3, 3), (1, 4)])
def test_every_value_is_met(monkeypatch: pytest.MonkeyPatch, rows: int, columns: int) -> None:
    monkeypatch.delenv("TEST_ALL", raising=False)
    found = pairs(range(rows), range(columns))
    assert len(found) == max(rows, columns)
    assert {row for row, _ in found} == set(range(rows))
    assert {column for _, column in found} == set(range(columns))


def test_all_pairs_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_ALL", "1")
    assert pairs("abc", (1, 2)) == [*product("abc", (1, 2))]
