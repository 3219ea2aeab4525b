"""Every artifact answers the probes once, the reference first."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from serving.errors import CannotScore, InputFails, InternalError, NotReady, RequestError
from serving.gateway.variant_status import NOT_DEPLOYED, ApplicationState
from serving.monitor import probing
from serving.monitor.probing import Probing
from serving.seams import Description
from tests.unit.fakes.backends import describe
from tests.unit.fakes.encoder import FakeTask
from tests.unit.fakes.waiting import MAX_WAIT_S, let_others_act
from tests.unit.loop_clock import LoopClock
from tests.unit.monitor.fakes import PROBES, Assessed, EvidenceAtOnce


class FakeDeployments:
    """Deployments whose states and artifacts a test sets.

    Variants in ``broken`` are not ready; those in ``silent`` do not answer.
    """

    def __init__(self) -> None:
        self.all = {("sentiment", v): running(1.0) for v in ("int4", "fp32", "bf16")}
        self.artifacts = {v: f"{v}-1" for v in ("int4", "fp32", "bf16")}
        self.broken: set[str] = set()
        self.silent: set[str] = set()

    async def states(self) -> Mapping[tuple[str, str], ApplicationState]:
        return self.all

    async def describe(self, model: str, variant: str) -> Description:
        if variant in self.broken:
            raise NotReady(f"{model}:{variant} failed to load")
        if variant in self.silent:
            raise TimeoutError
        return replace(describe(FakeTask()), artifact=self.artifacts[variant])

    def deploy(self, variant: str, deployed_at: float, artifact: str) -> None:
        """Deploy a variant again."""
        self.all["sentiment", variant] = running(deployed_at)
        self.artifacts[variant] = artifact


def running(deployed_at: float) -> ApplicationState:
    return ApplicationState(1, False, "", deployed_at)


class Looking:
    def __init__(self, evidence: EvidenceAtOnce | None = None) -> None:
        self.deployments = FakeDeployments()
        self.assessed = Assessed(evidence)
        self.probing = Probing(self.deployments, self.assessed.assessment)

    async def look(self) -> list[str]:
        """The variants that were probed when each was looked at once."""
        self.assessed.judge.probed.clear()
        for variant in self.assessed.assessment.reference_first:
            await self.probing.look(variant)
        return list(self.assessed.judge.probed)

    async def progress(self, variant: str) -> tuple[str, int, str]:
        """How far a variant's probes are."""
        probes = (await self.assessed.of(variant)).probes
        return probes.state, probes.done, probes.reason


@pytest.fixture
def looking() -> Looking:
    return Looking()


async def test_each_variant_is_probed_once_and_the_reference_first(looking: Looking) -> None:
    assert await looking.look() == ["fp32", "int4", "bf16"]
    assert await looking.look() == []


async def test_a_redeployed_variant_is_probed_again(looking: Looking) -> None:
    await looking.look()
    looking.deployments.deploy("int4", 2.0, "int4-2")
    assert await looking.look() == ["int4"]


async def test_a_redeployed_reference_has_all_probed_again(looking: Looking) -> None:
    await looking.look()
    looking.deployments.deploy("fp32", 2.0, "fp32-2")
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
    looking.deployments.deploy("int4", 2.0, "int4-2")
    assert await looking.look() == ["int4"]


async def test_what_a_broken_variant_raises_holds_up_nobody(looking: Looking) -> None:
    looking.assessed.judge.broken["int4"] = ValueError("not a number")
    assert await looking.look() == ["fp32", "bf16"]
    del looking.assessed.judge.broken["int4"]
    assert await looking.look() == []  # for a while
    assert (await looking.assessed.of("int4")).verdict == "not enough samples"


@pytest.mark.parametrize("error", [InternalError, InputFails])
async def test_a_variant_that_never_answers_its_probes_fails(
    looking: Looking, monkeypatch: pytest.MonkeyPatch, error: type[RequestError]
) -> None:
    monkeypatch.setattr(probing, "RETRY_S", 0.0)
    looking.assessed.judge.broken["int4"] = error("not a number")
    for _ in range(probing.MAX_FAILURES - 1):
        await looking.look()
        assert (await looking.assessed.of("int4")).in_auto
    await looking.look()
    assert (await looking.assessed.of("int4")).verdict == "failing"
    assert not (await looking.assessed.of("int4")).in_auto


async def test_a_reference_that_scores_nothing_is_not_asked_for_ever(
    looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "RETRY_S", 0.0)
    looking.assessed.judge.broken["int4"] = CannotScore("'m' cannot say how probable tokens are")
    await looking.look()
    later = Looking()
    later.probing = Probing(later.deployments, later.assessed.assessment, [looking.probing])
    del looking.assessed.judge.broken["int4"]
    for _ in range(3):
        assert await looking.look() == []
    reason = "is not compared: 'm' cannot say how probable tokens are"
    assert await looking.progress("int4") == ("waiting", 0, reason)
    assert (await looking.assessed.of("int4")).verdict == "not enough samples"
    assert (await looking.assessed.of("int4")).in_auto
    assert await later.look() == ["fp32", "int4", "bf16"]  # nobody waits for it
    # Another reference may be able to.
    looking.deployments.deploy("fp32", 2.0, "fp32-2")
    assert await looking.look() == ["fp32", "int4", "bf16"]


async def test_a_broken_variant_fails_again_under_a_new_reference(
    looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "RETRY_S", 0.0)
    looking.assessed.judge.broken["int4"] = InternalError("not a number")
    for _ in range(probing.MAX_FAILURES):
        await looking.look()
    looking.deployments.deploy("fp32", 2.0, "fp32-2")
    await looking.look()
    assert (await looking.assessed.of("int4")).verdict == "failing"


async def test_a_busy_variant_does_not_hold_up_the_others(
    looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "LOOK_S", 0.0)
    monkeypatch.setattr(probing, "WATCH_S", 0.0)
    looking.assessed.judge.busy["int4"] = asyncio.Event()
    task = asyncio.create_task(looking.probing.run())
    await let_others_act()
    looking.deployments.deploy("bf16", 2.0, "bf16-2")
    await let_others_act()
    task.cancel()
    assert looking.assessed.judge.probed == ["fp32", "bf16", "bf16"]


async def test_what_has_answered_everything_is_looked_at_seldom(
    looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "LOOK_S", 0.0)
    looking.assessed.judge.busy["int4"] = asyncio.Event()
    task = asyncio.create_task(looking.probing.run())
    await let_others_act()
    looking.deployments.deploy("bf16", 2.0, "bf16-2")
    await let_others_act()
    task.cancel()
    assert looking.assessed.judge.probed == ["fp32", "bf16"]


async def test_probes_that_a_new_reference_overtakes_do_not_count(looking: Looking) -> None:
    await looking.look()
    busy = looking.assessed.judge.busy["int4"] = asyncio.Event()
    looking.deployments.deploy("int4", 2.0, "int4-2")
    task = asyncio.create_task(looking.probing.look("int4"))
    await let_others_act()
    looking.deployments.deploy("fp32", 3.0, "fp32-3")
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
    looking.deployments.deploy("int4", 2.0, "int4-2")
    assert await looking.look() == []
    assert looking.assessed.assessment.deployed_at("int4") is None


async def test_a_variant_that_failed_to_load_says_why(looking: Looking) -> None:
    looking.deployments.broken = {"int4"}
    assert await looking.look() == ["fp32", "bf16"]
    assert (await looking.assessed.of("int4")).verdict == "not enough samples"
    assert (await looking.assessed.of("int4")).reason == "not ready: sentiment:int4 failed to load"
    looking.deployments.broken, looking.deployments.silent = set(), {"int4"}
    assert await looking.look() == []
    assert (await looking.assessed.of("int4")).reason == "not ready: no replica says what it holds"
    looking.deployments.silent = set()
    assert await looking.look() == ["int4"]


async def test_the_same_artifact_deployed_again_is_not_probed_again(looking: Looking) -> None:
    await looking.look()
    for variant in ("fp32", "int4"):
        looking.deployments.deploy(variant, 2.0, f"{variant}-1")
    assert await looking.look() == []
    assert looking.assessed.assessment.deployed_at("int4") == 2.0
    assert (await looking.assessed.of("int4")).verdict == "indistinguishable"
    assert (await looking.assessed.of("bf16")).verdict == "indistinguishable"


async def test_what_is_known_of_an_artifact_is_not_asked_after_a_restart(looking: Looking) -> None:
    looking.assessed.judge.agreements["int4"] = 0.0
    await looking.look()
    again = Looking(looking.assessed.evidence)
    again.deployments.artifacts["bf16"] = "bf16-2"
    assert await again.look() == ["bf16"]
    assert (await again.assessed.of("int4")).verdict == "failing"
    assert (await again.assessed.of("int4")).origins == (await looking.assessed.of("int4")).origins
    assert await again.progress("int4") == ("done", len(PROBES), "")


async def test_probes_go_on_where_a_killed_process_was(looking: Looking) -> None:
    looking.assessed.judge.num_turns = 6
    looking.assessed.judge.hold_at = ("int4", 3)
    await looking.probing.look("fp32")
    task = asyncio.create_task(looking.probing.look("int4"))
    await asyncio.wait_for(looking.assessed.judge.is_held.wait(), MAX_WAIT_S)
    assert await looking.progress("int4") == ("probing", 30, "probing 30 of 60")
    assert (await looking.assessed.of("int4")).verdict == "not enough samples"
    assert (await looking.assessed.of("int4")).reason == "probing 30 of 60"
    task.cancel()

    again = Looking(looking.assessed.evidence)
    again.assessed.judge.num_turns = 6
    assert await again.look() == ["int4"] * 3 + ["bf16"] * 6
    assert (await again.assessed.of("int4")).origins[0].count == len(PROBES)


async def test_a_variant_says_what_its_probes_wait_for(looking: Looking) -> None:
    assert await looking.progress("int4") == ("waiting", 0, "not looked at yet")
    looking.deployments.all["sentiment", "bf16"] = NOT_DEPLOYED
    looking.deployments.all["sentiment", "fp32"] = NOT_DEPLOYED
    await looking.look()
    assert await looking.progress("int4") == ("waiting", 0, "waits for its reference")
    assert await looking.progress("bf16") == ("waiting", 0, "not ready: waiting to be deployed")
    looking.deployments.all["sentiment", "fp32"] = running(1.0)
    await looking.look()
    assert await looking.progress("fp32") == ("waiting", 0, "waits until all variants are ready")
    looking.probing.settle()
    looking.assessed.judge.broken["int4"] = NotReady("gone")
    await looking.look()
    await looking.look()
    assert await looking.progress("fp32") == ("done", len(PROBES), "")
    assert await looking.progress("int4") == (
        "waiting",
        0,
        "did not answer; it is asked again soon",
    )


async def test_a_model_may_be_left_alone_for_a_while_after_all_came_up() -> None:
    clock, looking = LoopClock(), Looking()
    looking.probing = Probing(looking.deployments, looking.assessed.assessment, quiet_s=60)
    reason = "waits until replicas have found out how many threads they use"
    assert await looking.look() == []
    assert await looking.progress("fp32") == ("waiting", 0, reason)
    await clock.move(60)
    assert await looking.look() == ["fp32", "int4", "bf16"]


async def test_other_models_may_be_asked_first(looking: Looking) -> None:
    later = Looking()
    later.probing = Probing(later.deployments, later.assessed.assessment, [looking.probing])
    waits = ("waiting", 0, "waits for the probes of models that do not generate")
    assert await later.look() == []
    assert await later.progress("fp32") == waits
    await looking.probing.look("fp32")
    assert await later.look() == []  # the others are due as soon as their reference is done
    await looking.probing.look("bf16")
    looking.assessed.judge.broken["int4"] = NotReady("gone")
    await looking.probing.look("int4")
    assert await later.look() == ["fp32", "int4", "bf16"]  # one that fails holds up nobody


async def test_a_model_that_does_not_say_what_it_holds_holds_up_nobody(looking: Looking) -> None:
    later = Looking()
    later.probing = Probing(later.deployments, later.assessed.assessment, [looking.probing])
    looking.deployments.silent = {"fp32"}
    await looking.look()
    assert await later.look() == ["fp32", "int4", "bf16"]
