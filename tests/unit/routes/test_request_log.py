"""When the lines of requests are written."""

import asyncio
import logging
import time

import pytest

from serving.metrics import Labels
from serving.routes import request_log as module
from serving.routes.record import Record
from serving.routes.request_log import RequestLog
from tests.unit.fakes.waiting import MAX_WAIT_S

INT4 = Labels("minilm", "int4", "embeddings")


def note(log: RequestLog, request_id: str) -> None:
    record = Record(request_id, INT4, phases={"forward": 0.004})
    log.note({"method": "POST", "path": "/v1/embeddings"}, record, 200, 0.005)


async def written(log: pytest.LogCaptureFixture, count: int) -> None:
    """Wait until there are so many lines."""
    for _ in range(MAX_WAIT_S * 100):
        if len(log.messages) == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(log.messages)


async def test_lines_are_written_a_moment_later_with_the_time_of_their_answers(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 256)
    monkeypatch.setattr(module, "WRITE_AFTER_S", 0.2)
    lines, before = RequestLog(), time.time()
    note(lines, "first")
    note(lines, "second")
    after = time.time()
    assert log.messages == []
    await written(log, 2)
    assert log.messages == [
        f"POST /v1/embeddings 200 model=minilm variant=int4 forward=4.00ms total=5.00ms id={name}"
        for name in ("first", "second")
    ]
    for record in log.records:
        assert before <= record.created <= after
        assert record.msecs == pytest.approx(record.created % 1 * 1e3)


async def test_later_lines_are_written_too(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 256)
    monkeypatch.setattr(module, "WRITE_AFTER_S", 0.001)
    lines = RequestLog()
    for count in (1, 2):
        note(lines, "x")
        await written(log, count)


async def test_many_lines_wait_for_no_moment(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    monkeypatch.setattr(module, "WRITE_AFTER_S", 1e6)
    lines = RequestLog()
    for name in "abcde":
        note(lines, name)
    assert [line.rpartition("id=")[2] for line in log.messages] == ["a", "b", "c"]


async def test_who_wants_no_lines_gets_none(log: pytest.LogCaptureFixture) -> None:
    module.logger.setLevel(logging.WARNING)
    note(RequestLog(), "x")
    assert log.messages == []
