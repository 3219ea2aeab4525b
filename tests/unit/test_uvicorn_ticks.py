"""A real server that looks around once a second."""

from __future__ import annotations

import asyncio
import email.utils
import time

import httpx
import pytest
import uvicorn

from serving import uvicorn_ticks
from serving.uvicorn_ticks import slow_down_uvicorn


async def answer(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"there"})


@pytest.fixture(autouse=True)
def uvicorn_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    # ``setattr`` with the value itself has it restored after the test.
    monkeypatch.setattr(uvicorn.Server, "main_loop", uvicorn.Server.main_loop)


async def test_it_answers_with_the_date_and_ends_when_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow_down_uvicorn()
    monkeypatch.setattr(uvicorn_ticks, "TICK_S", 0.05)
    ticks = 0

    class Counted(uvicorn.Server):
        async def on_tick(self, counter: int) -> bool:
            nonlocal ticks
            ticks += 1
            return await super().on_tick(counter)

    server = Counted(uvicorn.Config(answer, port=0, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient() as client:
        told = await client.get(f"http://127.0.0.1:{port}")
        assert told.text == "there"
        date = email.utils.parsedate_to_datetime(told.headers["date"]).timestamp()
        assert abs(date - time.time()) < 60
    before = ticks
    while ticks == before:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    server.should_exit = True
    await asyncio.wait_for(serving, 30)
