"""The short form of ``make fuzz``, after all other tests of the demo."""

from __future__ import annotations

import psutil

from tests.fuzz.campaign import run
from tests.integration.demo_service import KEY
from tests.integration.running_service import RunningService

CASES = 600


def test_wrong_requests_and_wrong_bytes_get_documented_answers(demo: RunningService) -> None:
    report = run(demo.url, KEY, psutil.Process(demo.process.pid), CASES, seed=1)
    assert report.faults == []
    assert report.cases.total() > CASES / 2
