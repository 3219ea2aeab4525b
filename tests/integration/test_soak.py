"""The short form of ``make soak``: a minute of mixed traffic leaves no files open."""

from __future__ import annotations

import pytest

from benchmarks.soak import soak
from loadtests.bodies import KEY_VARIABLE
from loadtests.samples import OK
from tests.integration.demo_service import KEY
from tests.integration.running_service import RunningService

KEPT_CONNECTIONS = 200
"""Between clients, HAProxy, gateway and 15 replicas, counted at both ends; 72 came in a minute. If
each request left a file, there were some 480."""


async def test_a_minute_of_traffic_leaves_no_files_open(
    demo: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    (before, after), outcomes = await soak(demo, minutes=1)
    assert outcomes[OK] > 300  # of some 480 that were sent
    assert set(outcomes) == {OK}
    grown = sum(h.files for h in after.values()) - sum(h.files for h in before.values())
    assert grown < KEPT_CONNECTIONS
