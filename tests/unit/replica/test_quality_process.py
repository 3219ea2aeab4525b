"""The way to the quality process: one look-up at a time, and again after a failure."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from serving.replica import quality_process
from serving.replica.quality_process import QualityProcess
from serving.seams import GeneratedSample, Sample, Trace
from tests.unit.fakes import MAX_WAIT_S

SAMPLE = GeneratedSample("tiny", "int4", Trace((1,), ()), "a prompt")


class Serve:
    """Finds the application, once ``gate`` is set and unless there is a failure."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.offered: list[Sample] = []
        self.failures: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()

    def get_app_handle(self, name: str) -> Any:
        self.names.append(name)
        assert threading.current_thread() is not threading.main_thread()
        assert self.gate.wait(MAX_WAIT_S)
        if self.failures:
            raise self.failures.pop(0)
        return SimpleNamespace(offer=SimpleNamespace(remote=self._offer))

    async def _offer(self, sample: Sample) -> None:
        self.offered.append(sample)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    serve = Serve()
    monkeypatch.setattr(quality_process, "serve", serve)
    return serve


async def test_the_application_is_looked_up_once(serve: Serve) -> None:
    process = QualityProcess()
    assert serve.names == []
    for _ in range(3):
        await process.send(SAMPLE)
    assert serve.names == ["quality"]
    assert serve.offered == [SAMPLE] * 3


async def test_an_application_that_is_not_there_is_looked_for_again(serve: Serve) -> None:
    serve.failures = [RuntimeError("no such application")]
    process = QualityProcess()
    with pytest.raises(RuntimeError):
        await process.send(SAMPLE)
    await process.send(SAMPLE)
    assert serve.names == ["quality"] * 2


async def test_a_look_up_outlives_a_caller_without_patience(serve: Serve) -> None:
    serve.gate.clear()
    process = QualityProcess()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await process.send(SAMPLE)
    serve.gate.set()
    await process.send(SAMPLE)
    assert serve.names == ["quality"]
    assert serve.offered == [SAMPLE]
