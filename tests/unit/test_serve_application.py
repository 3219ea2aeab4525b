"""The way to another application: one look-up at a time, and again after a failure."""

from __future__ import annotations

import asyncio
import threading

import pytest
from ray.exceptions import RayActorError

from serving import serve_application
from serving.serve_application import Application, replica_call
from tests.unit.fakes.waiting import MAX_WAIT_S


class Serve:
    """Finds any application, once ``gate`` is set and unless there is a failure."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.failures: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()

    def get_app_handle(self, name: str) -> str:
        self.names.append(name)
        assert threading.current_thread() is not threading.main_thread()
        assert self.gate.wait(MAX_WAIT_S)
        if self.failures:
            raise self.failures.pop(0)
        return f"handle of {name}"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    serve = Serve()
    monkeypatch.setattr(serve_application, "serve", serve)
    return serve


async def test_an_application_is_looked_up_once(serve: Serve) -> None:
    application = Application("quality")
    assert serve.names == []
    assert not application.is_found
    for _ in range(3):
        assert await application.handle() == "handle of quality"
        assert application.is_found
    assert serve.names == ["quality"]


async def test_an_application_that_is_not_there_is_looked_for_again(serve: Serve) -> None:
    serve.failures = [RuntimeError("no such application")]
    application = Application("quality")
    with pytest.raises(RuntimeError):
        await application.handle()
    assert not application.is_found
    await application.handle()
    assert serve.names == ["quality"] * 2


async def test_a_look_up_outlives_callers_without_patience(serve: Serve) -> None:
    serve.gate.clear()
    application = Application("quality")
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await application.handle()
    assert not application.is_found
    serve.gate.set()
    await application.handle()
    assert serve.names == ["quality"]


async def test_a_call_that_the_other_side_gives_up_is_an_error() -> None:
    with pytest.raises(RayActorError, match="gave the call up"), replica_call():
        raise asyncio.CancelledError


async def test_a_caller_that_is_cancelled_stays_cancelled() -> None:
    async def call() -> None:
        with replica_call():
            await asyncio.Event().wait()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
