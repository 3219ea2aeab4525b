"""What the gateway gathers for a scrape, over handles that answer or do not."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve

from serving.gateway.cluster import Cluster, VariantPages
from serving.gateway.variant_status import application_name

NAMES = [("minilm", "fp32"), ("minilm", "int4"), ("minilm", "bf16")]


class FakeHandle:
    """A variant whose replicas answer a broadcast with these pages, or with these errors."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.describe = SimpleNamespace(remote=self._give_up)

    async def _give_up(self) -> None:
        raise asyncio.CancelledError

    def broadcast(self, method: str) -> "FakeHandle":
        assert method == "metrics"
        return self

    async def results_async(self, *, timeout_s: float, return_exceptions: bool) -> list[Any]:
        assert return_exceptions
        if not self.answers:
            raise TimeoutError(f"within {timeout_s} s")
        return self.answers


def deployed(**replicas: int) -> SimpleNamespace:
    """Ray Serve's status where each variant of minilm has so many replicas that run."""
    return SimpleNamespace(
        applications={
            application_name("minilm", variant): SimpleNamespace(
                status="RUNNING",
                message="",
                last_deployed_time_s=0.0,
                deployments={"d": SimpleNamespace(replica_states={"RUNNING": count}, message="")},
            )
            for variant, count in replicas.items()
        }
    )


@pytest.fixture
def handles(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeHandle]:
    found: dict[str, FakeHandle] = {}
    monkeypatch.setattr(serve, "get_app_handle", found.__getitem__)
    return found


async def test_every_configured_variant_is_there_with_what_runs_and_what_answered(
    handles: dict[str, FakeHandle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "status", lambda: deployed(fp32=2, int4=1))
    handles["minilm--fp32"] = FakeHandle("one page", RuntimeError("just dying"))
    handles["minilm--int4"] = FakeHandle()
    assert await Cluster(NAMES).metrics_pages() == [
        VariantPages("minilm", "fp32", 2, ("one page",)),
        VariantPages("minilm", "int4", 1, ()),
        VariantPages("minilm", "bf16", 0, ()),
    ]


async def test_a_replica_that_gives_a_description_up_hides_no_other_state(
    handles: dict[str, FakeHandle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "status", lambda: deployed(fp32=1))
    handles["minilm--fp32"] = FakeHandle()
    fp32, int4, _ = await Cluster(NAMES).statuses()
    assert (fp32.ready, fp32.replicas, fp32.description) == (False, 1, None)
    assert int4.reason == "waiting to be deployed"
