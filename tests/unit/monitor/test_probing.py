"""Every deployment answers the probes once, the reference first."""

from collections.abc import Mapping

import pytest

from serving.errors import NotReady
from serving.gateway.variant_status import NOT_DEPLOYED, ApplicationState
from serving.monitor.probing import Probing
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
        self.probing = Probing(self.deployments, [self.assessed.assessment])

    async def look(self) -> list[str]:
        """The variants that one look has probed."""
        self.assessed.judge.probed.clear()
        await self.probing.look()
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


async def test_a_variant_that_failed_is_left_alone_for_a_while(looking: Looking) -> None:
    looking.deployments.broken = {"int4"}
    assert await looking.look() == ["fp32", "bf16"]
    looking.deployments.broken = set()
    assert await looking.look() == []
