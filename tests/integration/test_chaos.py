"""The short form of ``make chaos``: who dies is replaced, and what clients see of it is bounded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.chaos.checker import FaultRow
from benchmarks.chaos.experiment import run_fault
from benchmarks.chaos.log import Path
from benchmarks.chaos.plan import FAULTS
from benchmarks.chaos.running import Prey, running_prey


@pytest.fixture(scope="module")
def prey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prey]:
    with running_prey(tmp_path_factory.mktemp("chaos"), with_disk=False) as prey:
        yield prey


def require_that_promises_were_kept(row: FaultRow) -> None:
    assert row.broken == (), row
    for path, said in row.paths.items():
        assert said.sent > 20, (path, said)  # else nothing was tried


async def test_a_replica_that_is_killed(prey: Prey) -> None:
    row = await run_fault(FAULTS["kill-replica"], prey, seed=1)
    require_that_promises_were_kept(row)
    assert not row.paths[Path.SELECTING].lost
    assert not row.paths[Path.SELECTING].refused


async def test_a_gateway_that_is_killed(prey: Prey) -> None:
    row = await run_fault(FAULTS["kill-gateway"], prey, seed=2)
    require_that_promises_were_kept(row)
    assert not row.paths[Path.DIRECT].lost
    assert not row.paths[Path.DIRECT].refused
