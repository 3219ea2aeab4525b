"""The short form of ``make soak``: a minute of mixed traffic leaves no files open."""

from __future__ import annotations

import pytest

from benchmarks.soak import soak
from loadtests.bodies import KEY_VARIABLE
from loadtests.samples import OK
from tests.integration.demo_service import KEY
from tests.integration.running_service import RunningService

UNDER_WAY = 64
"""Connections that may be open when the look is taken."""


async def test_a_minute_of_traffic_leaves_no_files_open(
    demo: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    (before, after), outcomes = await soak(demo, minutes=1)
    assert outcomes[OK] > 100  # of some 480 that were sent
    assert set(outcomes) == {OK}
    assert set(before) <= set(after)
    assert sum(h.files for h in after.values()) < sum(h.files for h in before.values()) + UNDER_WAY
