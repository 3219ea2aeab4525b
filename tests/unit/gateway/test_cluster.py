"""What the gateway gathers for a scrape, over handles that answer or do not."""

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve
from ray.exceptions import RayActorError, RayTaskError

from serving.errors import NotReady
from serving.gateway import cluster as module
from serving.gateway.cluster import Cluster, VariantPages
from serving.gateway.variant_status import application_name
from tests.unit.fakes.broadcast import SILENT, FakeBroadcast
from tests.unit.fakes.waiting import MAX_WAIT_S, let_others_act

NAMES = [("minilm", "fp32"), ("minilm", "int4"), ("minilm", "bf16")]


class FakeHandle:
    """A variant whose replicas answer a broadcast with these pages, or with these errors."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.num_broadcasts = 0

    def options(self, *, method_name: str, stream: bool, **_: str) -> SimpleNamespace:
        assert (method_name, stream) == ("describe", False)
        return SimpleNamespace(remote=self._give_up)

    async def _give_up(self) -> None:
        raise asyncio.CancelledError

    def broadcast(self, method: str) -> FakeBroadcast:
        assert method == "metrics"
        self.num_broadcasts += 1
        return FakeBroadcast(self.answers)


def deployed(**replicas: int) -> dict[str, Any]:
    """Ray Serve's applications where each variant of minilm has so many replicas that run."""
    return {
        application_name("minilm", variant): {
            "status": "RUNNING",
            "message": "",
            "last_deployed_time_s": 0.0,
            "deployments": {"d": {"replicas": [{"state": "RUNNING"}] * count, "message": ""}},
        }
        for variant, count in replicas.items()
    }


class Controller:
    """Ray Serve's controller: says ``status``, once ``gate`` is set, or raises it."""

    def __init__(self) -> None:
        self.status: dict[str, Any] | Exception = deployed()
        self.num_asked = 0
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self) -> dict[str, Any]:
        self.num_asked += 1
        self.entered.set()
        assert self.gate.wait(MAX_WAIT_S)
        if isinstance(self.status, Exception):
            raise self.status
        return self.status


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    controller = Controller()
    monkeypatch.setattr(module, "serve_applications", controller)
    return controller


@pytest.fixture
def no_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """States are always too old."""
    monkeypatch.setattr(module, "STATES_MAX_AGE_S", -1.0)
    monkeypatch.setattr(module, "NEWER_STATES_S", MAX_WAIT_S)


@pytest.fixture
def handles(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeHandle]:
    found: dict[str, FakeHandle] = {}
    monkeypatch.setattr(serve, "get_app_handle", found.__getitem__)
    return found


async def test_every_configured_variant_is_there_with_what_runs_and_what_answered(
    handles: dict[str, FakeHandle], controller: Controller
) -> None:
    controller.status = deployed(fp32=2, int4=1)
    handles["minilm--fp32"] = FakeHandle("one page", RuntimeError("just dying"))
    handles["minilm--int4"] = FakeHandle(TimeoutError("the controller is silent"))
    assert await Cluster(NAMES).metrics_pages() == [
        VariantPages("minilm", "fp32", 2, ("one page",)),
        VariantPages("minilm", "int4", 1, ()),
        VariantPages("minilm", "bf16", 0, ()),
    ]


async def test_a_replica_that_hangs_hides_no_other_of_its_variant(
    handles: dict[str, FakeHandle], controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.status = deployed(fp32=2)
    handles["minilm--fp32"] = FakeHandle("one page", "the other")
    cluster = Cluster(NAMES)
    await cluster.metrics_pages()  # finds the handle, in a thread
    monkeypatch.setattr(module, "REPLICA_ANSWER_S", 0.01)
    handles["minilm--fp32"].answers = [SILENT, "the other"]
    assert (await cluster.metrics_pages())[0] == VariantPages("minilm", "fp32", 2, ("the other",))


async def test_a_replica_that_gives_a_description_up_hides_no_other_state(
    handles: dict[str, FakeHandle], controller: Controller
) -> None:
    controller.status = deployed(fp32=1)
    handles["minilm--fp32"] = FakeHandle()
    fp32, int4, _ = await Cluster(NAMES).statuses()
    assert (fp32.ready, fp32.replicas, fp32.description) == (False, 1, None)
    assert int4.reason == "waiting to be deployed"


AWAY = [
    RayActorError(),
    RayTaskError("get_serve_instance_details", "a traceback", ValueError("a bug over there")),
    TimeoutError(),
]


@pytest.mark.usefixtures("no_age")
@pytest.mark.parametrize("error", AWAY)
async def test_without_the_controller_the_last_states_stand(
    handles: dict[str, FakeHandle], controller: Controller, error: Exception
) -> None:
    controller.status = deployed(fp32=2)
    handles["minilm--fp32"] = FakeHandle("one page")
    cluster = Cluster(NAMES)
    pages, statuses = await cluster.metrics_pages(), await cluster.statuses()
    assert pages[0] == VariantPages("minilm", "fp32", 2, ("one page",))
    assert 0 <= cluster.states_age_s < MAX_WAIT_S
    controller.status = error
    read_at = time.monotonic() - cluster.states_age_s
    assert await cluster.metrics_pages() == pages
    assert await cluster.statuses() == statuses
    assert time.monotonic() - cluster.states_age_s == pytest.approx(read_at, abs=1e-3)


@pytest.mark.parametrize("error", AWAY)
async def test_a_controller_that_never_answered_is_not_ready(
    controller: Controller, error: Exception
) -> None:
    controller.status = error
    cluster = Cluster(NAMES)
    for call in (cluster.metrics_pages(), cluster.statuses(), cluster.states()):
        with pytest.raises(NotReady, match="controller does not answer") as caught:
            await call
        assert caught.value.retry_after_s is not None


@pytest.mark.usefixtures("no_age")
async def test_a_controller_that_hangs_is_asked_once_however_many_wait(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEWER_STATES_S", 0.005)
    cluster = Cluster(NAMES)
    before = await cluster.states()
    controller.gate.clear()
    controller.entered.clear()
    controller.status = deployed(int4=1)
    assert await asyncio.gather(*(cluster.states() for _ in range(3))) == [before] * 3
    assert await asyncio.to_thread(controller.entered.wait, MAX_WAIT_S)
    assert await cluster.states() == before
    assert controller.num_asked == 2
    controller.gate.set()
    async with asyncio.timeout(MAX_WAIT_S):
        while await cluster.states() == before:
            pass


@pytest.mark.usefixtures("no_age")
async def test_replicas_are_asked_while_the_controller_is(
    handles: dict[str, FakeHandle], controller: Controller
) -> None:
    controller.status = deployed(fp32=1)
    handles["minilm--fp32"] = FakeHandle("fp32's page")
    cluster = Cluster(NAMES)
    await cluster.metrics_pages()
    handles["minilm--int4"] = FakeHandle("int4's page")
    controller.gate.clear()
    controller.status = deployed(fp32=2, int4=1)
    scraping = asyncio.create_task(cluster.metrics_pages())
    await let_others_act()
    assert handles["minilm--fp32"].num_broadcasts == 2
    controller.gate.set()
    # One of two replicas has answered, and what was not known yet is asked, too.
    assert await scraping == [
        VariantPages("minilm", "fp32", 2, ("fp32's page",)),
        VariantPages("minilm", "int4", 1, ("int4's page",)),
        VariantPages("minilm", "bf16", 0, ()),
    ]
    assert handles["minilm--fp32"].num_broadcasts == 2


@pytest.mark.usefixtures("no_age")
async def test_a_variant_of_which_nothing_runs_has_no_page(
    handles: dict[str, FakeHandle], controller: Controller
) -> None:
    controller.status = deployed(fp32=1)
    handles["minilm--fp32"] = FakeHandle("the page of one that stops")
    cluster = Cluster(NAMES)
    await cluster.metrics_pages()
    controller.status = deployed()
    assert (await cluster.metrics_pages())[0] == VariantPages("minilm", "fp32", 0, ())
