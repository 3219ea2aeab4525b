"""Whether there are cores for variants that want some of their own."""

from __future__ import annotations

import pytest

from serving.app import plan as module
from tests.unit.app.planning import FOLDED, TWO, plan_of, refusal
from tests.unit.conftest import WriteConfig

pytestmark = pytest.mark.usefixtures("paper")

OWN = "{name: own, recipe: folded, runtime: paper, cores: exclusive, threads: 2, replicas: 2}"


@pytest.mark.parametrize(
    ("variants", "num_cores"), [(f"[{OWN}]", 4), (f"[{OWN}, {FOLDED}]", 5), (TWO, 1)]
)
def test_exclusive_cores_that_there_are_are_let_through(
    write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch, variants: str, num_cores: int
) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: num_cores)
    assert plan_of(write_config(variants)).variants


@pytest.mark.parametrize(
    ("variants", "num_cores", "beside"),
    [(f"[{OWN}]", 3, ""), (f"[{OWN}, {FOLDED}]", 4, " and one core for all others")],
)
def test_more_exclusive_cores_than_there_are_are_refused(
    write_config: WriteConfig,
    monkeypatch: pytest.MonkeyPatch,
    variants: str,
    num_cores: int,
    beside: str,
) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: num_cores)
    expected = f"cores: exclusive: tiny:own want 4 cores{beside}; this machine has {num_cores}"
    assert expected in refusal(write_config(variants))
