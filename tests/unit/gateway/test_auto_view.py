"""What the router says that it would do is what it does."""

from __future__ import annotations

from itertools import product

import pytest

from serving.errors import NotReady
from serving.seams import NO_LIMITS, Limits
from tests.unit.gateway.test_auto import FakeBoard, Site

LIMITS = [
    Limits(max_latency_s, min_quality, max_weights)
    for max_latency_s, min_quality, max_weights in product(
        (None, 0.005, 0.015, 0.025, 1.0), (None, 0.5, 0.95, 0.995), (None, 50, 1_000)
    )
]
"""Around what the three variants have: 30, 20 and 10 ms by their probes, agreement 1, 0.99, 0.9."""


@pytest.fixture
def board() -> FakeBoard:
    return FakeBoard()


@pytest.mark.parametrize("policy", ["best_effort", "strict"])
@pytest.mark.parametrize("failing", [set(), {"int4"}, {"bf16", "int4"}])
async def test_it_is_what_a_request_then_gets(board, policy: str, failing: set[str]) -> None:
    board.failing = failing
    site = Site(board, slo_policy=policy)
    for limits in LIMITS:
        view = await site.router.explain("minilm", limits)
        if view.choice is None:
            with pytest.raises(NotReady) as refused:
                await site.router.choose("minilm", limits)
            assert view.refusal == refused.value.message
            continue
        choice = await site.router.choose("minilm", limits)
        assert view.choice == choice
        assert view.refusal == ""
        (chosen,) = [one for one in view.variants if one.variant == choice.variant]
        assert chosen.missed == choice.missed
        # Whoever is out is out for a reason, and none that is in is passed over for one that is.
        assert bool(choice.missed) == (not any(not one.out for one in view.variants))


async def test_looking_changes_no_choice(board) -> None:
    looked, other = Site(board), Site(board)
    for limits in LIMITS:
        await looked.router.explain("minilm", limits)
    for limits in LIMITS:
        assert await looked.router.choose("minilm", limits) == await other.router.choose(
            "minilm", limits
        )


async def test_reasons_name_what_is_missed(board) -> None:
    board.failing = {"int4"}
    view = await Site(board).router.explain("minilm", Limits(0.025, 0.999, None))
    said = {one.variant: one.out for one in view.variants}
    assert said["fp32"] == "p95 is 30.0 ms, the limit is 25 ms"
    assert said["bf16"] == "agreement that is certain is 0.9900, the limit is 0.999"
    assert said["int4"].startswith("its verdict is failing; ")


async def test_latencies_are_told_with_the_number_of_their_measurements(board) -> None:
    site = Site(board)
    for _ in range(3):
        site.measure("int4", 0.01)
    view = await site.router.explain("minilm", NO_LIMITS)
    said = {one.variant: (one.origin, one.num_measured) for one in view.variants}
    assert said == {"fp32": ("probes", 40), "bf16": ("probes", 40), "int4": ("requests", 3)}


async def test_a_variant_that_is_not_ready_is_out_with_its_reason(board) -> None:
    site = Site(board)
    site.not_ready = {"bf16": False}
    view = await site.router.explain("minilm", NO_LIMITS)
    assert [one.variant for one in view.variants] == ["fp32", "bf16", "int4"]
    (gone,) = [one for one in view.variants if one.variant == "bf16"]
    assert gone.out.startswith("not ready: ")
    assert gone.p95_latency_s is None
