"""What a gateway asks the others, over a handle that answers or does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ray import serve
from ray.serve.exceptions import RayServeException

from serving.gateway import other_gateways as module
from serving.gateway.latencies import Latencies
from serving.gateway.other_gateways import OtherGateways
from tests.unit.fakes.broadcast import SILENT, FakeBroadcast
from tests.unit.fakes.waiting import MAX_WAIT_S

NAME = ("minilm", "fp32")


class FakeHandle:
    """All gateways of one service, which answer a broadcast in their own process."""

    def __init__(self) -> None:
        self.gateways: dict[str, OtherGateways] = {}
        self.silent: set[str] = set()
        self.dying: set[str] = set()
        self.num_broadcasts = 0

    def broadcast(self, method: str, *arguments: Any) -> FakeBroadcast:
        self.num_broadcasts += 1
        return FakeBroadcast(
            [
                SILENT
                if name in self.silent
                else RuntimeError("just dying")
                if name in self.dying
                else getattr(gateway, method)(*arguments)
                for name, gateway in self.gateways.items()
            ]
        )


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> FakeHandle:
    handle = FakeHandle()
    monkeypatch.setattr(serve, "get_app_handle", {"gateway": handle}.__getitem__)
    monkeypatch.setattr(module, "REPLICA_ANSWER_S", MAX_WAIT_S)
    monkeypatch.setattr(module, "REPORT_S", MAX_WAIT_S)
    return handle


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has nobody wait any more; to be called when the handle is found, which takes a thread."""

    def hurry() -> None:
        monkeypatch.setattr(module, "REPLICA_ANSWER_S", 0.01)
        monkeypatch.setattr(module, "REPORT_S", 0.01)

    return hurry


@pytest.fixture
def latencies(handle: FakeHandle) -> dict[str, Latencies]:
    """Of three gateways."""
    found = {name: Latencies() for name in ("a", "b", "c")}
    for name, measured in found.items():
        handle.gateways[name] = OtherGateways(name, False, measured, f"page of {name}".strip)
    return found


def call(latencies: Latencies) -> None:
    latencies.answered(latencies.begin(*NAME), 0)


def count(latencies: Latencies) -> int:
    figures = latencies.figures(*NAME)
    return figures.count if figures else 0


@pytest.mark.usefixtures("latencies")
async def test_the_page_of_every_gateway_is_there_once_whichever_is_asked(
    handle: FakeHandle,
) -> None:
    for gateway in handle.gateways.values():
        assert sorted(await gateway.pages()) == ["page of a", "page of b", "page of c"]


@pytest.mark.usefixtures("latencies")
async def test_who_hangs_or_dies_hides_no_other(
    handle: FakeHandle, impatient: Callable[[], None]
) -> None:
    await handle.gateways["a"].pages()
    impatient()
    handle.silent.add("b")
    assert await handle.gateways["a"].pages() == ["page of a", "page of c"]
    handle.dying.add("c")
    assert await handle.gateways["a"].pages() == ["page of a"]


async def test_its_own_page_is_there_whatever_ray_serve_says(
    handle: FakeHandle, latencies: dict[str, Latencies], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise RayServeException("no such application")

    monkeypatch.setattr(serve, "get_app_handle", fail)
    call(latencies["b"])
    assert await handle.gateways["a"].pages() == ["page of a"]
    await handle.gateways["a"].learn()
    assert count(latencies["a"]) == 0


async def test_what_all_have_measured_is_learnt_once(
    handle: FakeHandle, latencies: dict[str, Latencies]
) -> None:
    for measured in latencies.values():
        call(measured)
    for _ in range(2):
        await handle.gateways["a"].learn()
    assert count(latencies["a"]) == 3
    assert set(latencies["a"].told) == {"b", "c"}


async def test_what_a_gateway_was_late_to_tell_is_learnt_the_next_time(
    handle: FakeHandle, latencies: dict[str, Latencies], impatient: Callable[[], None]
) -> None:
    await handle.gateways["a"].pages()
    impatient()
    call(latencies["b"])
    call(latencies["c"])
    handle.silent.add("b")
    await handle.gateways["a"].learn()
    assert set(latencies["a"].told) == {"c"}
    handle.silent.clear()
    await handle.gateways["a"].learn()
    assert set(latencies["a"].told) == {"b", "c"}


async def test_where_there_is_no_other_nobody_is_asked(handle: FakeHandle) -> None:
    alone = OtherGateways("a", True, Latencies(), lambda: "page of a")
    assert await alone.pages() == ["page of a"]
    await alone.learn()
    assert handle.num_broadcasts == 0
