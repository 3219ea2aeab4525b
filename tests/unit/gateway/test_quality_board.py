"""The way from the gateway to the quality process: whatever happens there is "not ready" here."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError, RaySystemError, RayTaskError
from ray.serve.exceptions import RayServeException

from serving import serve_application
from serving.errors import InvalidField, NotReady
from serving.gateway import quality_board as module
from serving.gateway.quality_board import RemoteQuality
from tests.unit.fakes.waiting import MAX_WAIT_S


class Serve:
    """Finds the application, once ``gate`` is set and unless there is a failure."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.failures: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()
        self.answer: object = ()
        """What every method answers; an exception that is no value is raised."""
        self.waits: asyncio.Event | None = None

    def get_app_handle(self, name: str) -> Any:
        self.names.append(name)
        assert self.gate.wait(MAX_WAIT_S)
        if self.failures:
            raise self.failures.pop(0)
        method = SimpleNamespace(remote=self._remote)
        return SimpleNamespace(report=method, inputs=method, evaluate=method, metrics=method)

    async def _remote(self, *_: object) -> object:
        if self.waits is not None:
            self.waits.set()
            await asyncio.Event().wait()
        if isinstance(self.answer, BaseException) and not isinstance(self.answer, InvalidField):
            raise self.answer
        return self.answer


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    serve = Serve()
    monkeypatch.setattr(serve_application, "serve", serve)
    return serve


async def test_what_the_process_answers_is_passed_on(serve: Serve) -> None:
    board = RemoteQuality()
    assert await board.report() == ()
    serve.answer = "a page"
    assert await board.metrics_page() == "a page"
    serve.answer = ("a text", ("a query", "a document"))
    assert await board.inputs("minilm") == serve.answer
    serve.answer = InvalidField("no input is kept", param="model")
    with pytest.raises(InvalidField, match="no input is kept"):
        await board.inputs("minilm")
    serve.answer = InvalidField("no labelled data", param="model")
    with pytest.raises(InvalidField, match="no labelled data"):
        await board.evaluate("minilm")
    assert serve.names == ["quality"]


@pytest.mark.parametrize(
    "failure",
    [
        RayActorError(),
        RayServeException("no such application"),
        RayTaskError("report", "a traceback", ValueError("a bug over there")),
        RaySystemError("the answer is lost"),
        asyncio.CancelledError(),  # the process gave the call up
    ],
)
async def test_whatever_fails_over_there_holds_no_page_of_metrics_up(serve, failure) -> None:
    serve.answer = failure
    board = RemoteQuality()
    with pytest.raises(NotReady, match="does not answer") as caught:
        await board.report()
    assert caught.value.retry_after_s is not None
    assert await board.metrics_page() is None


async def test_no_answer_in_time_is_not_ready(serve: Serve, monkeypatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.005)
    serve.waits = asyncio.Event()
    with pytest.raises(NotReady):
        await RemoteQuality().report()


async def test_a_caller_that_leaves_is_not_held(serve: Serve) -> None:
    serve.waits = asyncio.Event()
    asking = asyncio.create_task(RemoteQuality().metrics_page())
    await serve.waits.wait()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()


async def test_one_look_up_outlives_callers_without_patience(serve: Serve, monkeypatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.005)
    serve.gate.clear()
    board = RemoteQuality()
    for _ in range(3):
        assert await board.metrics_page() is None
    serve.gate.set()
    monkeypatch.undo()
    monkeypatch.setattr(serve_application, "serve", serve)
    serve.answer = "a page"
    assert await board.metrics_page() == "a page"
    assert serve.names == ["quality"]


async def test_an_application_that_was_not_there_is_looked_for_again(serve: Serve) -> None:
    serve.failures = [RayServeException("no such application")]
    board = RemoteQuality()
    assert await board.metrics_page() is None
    serve.answer = "a page"
    assert await board.metrics_page() == "a page"
    assert serve.names == ["quality"] * 2
