"""Every deployment answers the probes once, the reference first."""

import asyncio
from collections.abc import Mapping

import pytest

from serving.errors import InternalError, NotReady
from serving.gateway.variant_status import NOT_DEPLOYED, ApplicationState
from serving.monitor import probing
from serving.monitor.probing import Probing
from tests.unit.fakes import let_others_act
from tests.unit.monitor.fakes import Assessed


class FakeDeployments:
    """Deployments whose states a test sets; variants in ``broken`` are not ready."""

    def __init__(self) -> None:
        self.all = {("sentiment", v): running(1.0) for v in ("int4", "fp32", "bf16")}
        self.broken: set[str] = set()

    async def states(self) -> Mapping[tuple[str, str], ApplicationState]:
        return self.all

    async def require_ready(self, model: str, variant: str) -> None:
        if variant in self.broken:
            raise NotReady(f"{model}:{variant} failed to load")


def running(deployed_at: float) -> ApplicationState:
    return ApplicationState(1, False, "", deployed_at)


class Looking:
    def __init__(self) -> None:
        self.deployments = FakeDeployments()
        self.assessed = Assessed()
        self.probing = Probing(self.deployments, self.assessed.assessment)

    async def look(self) -> list[str]:
        """The variants that were probed when each was looked at once."""
        self.assessed.judge.probed.clear()
        for variant in self.assessed.assessment.reference_first:
            await self.probing.look(variant)
        return list(self.assessed.judge.probed)


@pytest.fixture
def looking() -> Looking:
    return Looking()


async def test_each_variant_is_probed_once_and_the_reference_first(looking: Looking) -> None:
    assert await looking.look() == ["fp32", "int4", "bf16"]
    assert await looking.look() == []


async def test_a_redeployed_variant_is_probed_again(looking: Looking) -> None:
    await looking.look()
    looking.deployments.all["sentiment", "int4"] = running(2.0)
    assert await looking.look() == ["int4"]


async def test_a_redeployed_reference_has_all_probed_again(looking: Looking) -> None:
    await looking.look()
    looking.deployments.all["sentiment", "fp32"] = running(2.0)
    assert await looking.look() == ["fp32", "int4", "bf16"]


async def test_nothing_is_probed_while_a_variant_loads(looking: Looking) -> None:
    looking.deployments.all["sentiment", "int4"] = NOT_DEPLOYED
    assert await looking.look() == []
    looking.deployments.all["sentiment", "int4"] = ApplicationState(0, True, "broken")
    assert await looking.look() == ["fp32", "bf16"]


async def test_nothing_is_probed_before_the_reference(looking: Looking) -> None:
    looking.probing.settle()
    looking.deployments.all["sentiment", "fp32"] = NOT_DEPLOYED
    assert await looking.look() == []


async def test_a_variant_that_is_not_deployed_does_not_hold_up_the_others(
    looking: Looking,
) -> None:
    looking.probing.settle()
    looking.deployments.all["sentiment", "int4"] = NOT_DEPLOYED
    assert await looking.look() == ["fp32", "bf16"]


async def test_a_deployment_under_way_is_not_probed_by_its_old_replicas(
    looking: Looking,
) -> None:
    await looking.look()
    looking.deployments.all["sentiment", "int4"] = ApplicationState(1, False, "", 2.0, True)
    assert await looking.look() == []
    looking.deployments.all["sentiment", "int4"] = running(2.0)
    assert await looking.look() == ["int4"]


async def test_what_a_broken_variant_raises_holds_up_nobody(looking: Looking) -> None:
    looking.assessed.judge.broken["int4"] = ValueError("not a number")
    assert await looking.look() == ["fp32", "bf16"]
    del looking.assessed.judge.broken["int4"]
    assert await looking.look() == []  # for a while
    assert looking.assessed.of("int4").verdict == "not enough samples"


async def test_a_variant_that_never_answers_its_probes_fails(
    looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "RETRY_S", 0.0)
    looking.assessed.judge.broken["int4"] = InternalError("not a number")
    for _ in range(probing.MAX_FAILURES - 1):
        await looking.look()
        assert looking.assessed.of("int4").in_auto
    await looking.look()
    assert looking.assessed.of("int4").verdict == "failing"
    assert not looking.assessed.of("int4").in_auto


async def test_a_broken_variant_fails_again_under_a_new_reference(
    looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "RETRY_S", 0.0)
    looking.assessed.judge.broken["int4"] = InternalError("not a number")
    for _ in range(probing.MAX_FAILURES):
        await looking.look()
    looking.deployments.all["sentiment", "fp32"] = running(2.0)
    await looking.look()
    assert looking.assessed.of("int4").verdict == "failing"


async def test_a_busy_variant_does_not_hold_up_the_others(
    looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "LOOK_S", 0.0)
    looking.assessed.judge.busy["int4"] = asyncio.Event()
    task = asyncio.create_task(looking.probing.run())
    await let_others_act()
    looking.deployments.all["sentiment", "bf16"] = running(2.0)
    await let_others_act()
    task.cancel()
    assert looking.assessed.judge.probed == ["fp32", "bf16", "bf16"]


async def test_probes_that_a_new_reference_overtakes_do_not_count(looking: Looking) -> None:
    await looking.look()
    busy = looking.assessed.judge.busy["int4"] = asyncio.Event()
    looking.deployments.all["sentiment", "int4"] = running(2.0)
    task = asyncio.create_task(looking.probing.look("int4"))
    await let_others_act()
    looking.deployments.all["sentiment", "fp32"] = running(3.0)
    await looking.probing.look("fp32")
    busy.set()
    await task
    assert looking.assessed.assessment.deployed_at("int4") is None
    assert await looking.look() == ["int4", "bf16"]


async def test_a_new_variant_is_not_taken_for_the_old_one_while_the_reference_is_away(
    looking: Looking,
) -> None:
    await looking.look()
    looking.deployments.all["sentiment", "fp32"] = NOT_DEPLOYED
    looking.deployments.all["sentiment", "int4"] = running(2.0)
    assert await looking.look() == []
    assert looking.assessed.assessment.deployed_at("int4") is None


async def test_a_variant_that_failed_is_left_alone_for_a_while(looking: Looking) -> None:
    looking.deployments.broken = {"int4"}
    assert await looking.look() == ["fp32", "bf16"]
    looking.deployments.broken = set()
    assert await looking.look() == []
