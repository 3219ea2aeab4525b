"""The router: what it knows of each variant, and when it asks."""

from __future__ import annotations

import asyncio

import pytest

from serving.config import ModelConfig
from serving.errors import InternalError, NotReady
from serving.gateway import auto as module
from serving.gateway import background_refresh
from serving.gateway.auto import AutoRouter
from serving.gateway.latencies import Latencies
from serving.seams import (
    NO_LIMITS,
    Limits,
    ModelQuality,
    VariantQuality,
    VariantStatus,
    Verdict,
)
from tests.unit.fakes.backends import SilentBoard, describe
from tests.unit.fakes.encoder import FakeTask
from tests.unit.fakes.waiting import let_others_act

VARIANTS = ("fp32", "bf16", "int4")


class FakeBoard(SilentBoard):
    """Knows the quality of minilm's variants; a test changes it, or makes it fail or hang."""

    def __init__(self) -> None:
        self.low: dict[str, float | None] = {"fp32": 1.0, "bf16": 0.99, "int4": 0.9}
        self.probe_s: dict[str, float | None] = {"fp32": 0.03, "bf16": 0.02, "int4": 0.01}
        self.failing: set[str] = set()
        self.unjudged: set[str] = set()
        self.reports = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def report(self) -> tuple[ModelQuality, ...]:
        self.reports += 1
        await self.answers.wait()
        qualities = tuple(
            VariantQuality(
                variant=variant,
                is_reference=variant == "fp32",
                verdict=self._verdict(variant),
                reason="",
                in_auto=self._verdict(variant) != "failing",
                quality_low=None if variant in self.unjudged else self.low[variant],
                origins=(),
                labels=None,
                worst=(),
                probe_p95_s=self.probe_s[variant],
                num_timed=40,
            )
            for variant in VARIANTS
        )
        return (ModelQuality("minilm", "embeddings", "fp32", 0.8, 0.05, None, qualities),)

    def _verdict(self, variant: str) -> Verdict:
        if variant in self.unjudged:
            return "not enough samples"
        return "failing" if variant in self.failing else "indistinguishable"


class Site:
    """A router over three variants, on a clock that stands still."""

    def __init__(self, board: FakeBoard | None, **changes) -> None:
        self.not_ready: dict[str, bool] = {}
        """Variants that are not ready, and whether they have failed."""
        self.silent: dict[str, int] = {}
        """Variants that do not describe themselves, and how many replicas they have."""
        self.asked = 0
        self.now = 0.0
        self.latencies = Latencies(lambda: self.now)
        model = {
            "name": "minilm",
            "task": "embeddings",
            "source": "hf:a/b",
            "variants": list(VARIANTS),
        }
        config = ModelConfig.model_validate({**model, **changes})
        self.router = AutoRouter([config], self.statuses, self.latencies, board)

    async def statuses(self) -> list[VariantStatus]:
        self.asked += 1
        await asyncio.sleep(0)
        return [self._status(name) for name in VARIANTS]

    def _status(self, name: str) -> VariantStatus:
        if name in self.not_ready:
            return VariantStatus("minilm", name, False, self.not_ready[name], "loading", 0, None)
        if name in self.silent:
            return VariantStatus("minilm", name, False, False, "late", self.silent[name], None)
        return VariantStatus("minilm", name, True, False, "", 1, describe(FakeTask()))

    def measure(self, variant: str, total_s: float) -> None:
        """A request to ``variant`` that took so long."""
        self.now += 1
        with self.latencies.measuring("minilm", variant, 30) as call:
            self.now += total_s
            self.latencies.answered(call, queue_s=0)

    def fail(self, variant: str) -> None:
        """A request to ``variant`` that ends with an internal error at once."""
        with self.latencies.measuring("minilm", variant, 30):
            raise InternalError("internal error")

    async def choose(self, limits: Limits = NO_LIMITS) -> str:
        return (await self.router.choose("minilm", limits)).variant


@pytest.fixture
def board() -> FakeBoard:
    return FakeBoard()


async def test_before_anything_is_measured_the_single_probes_tell(board) -> None:
    site = Site(board)
    assert await site.choose() == "int4"
    assert await site.choose(Limits(min_quality=0.95)) == "bf16"
    assert await site.choose(Limits(max_latency_s=0.025, min_quality=0.95)) == "bf16"


async def test_what_is_measured_goes_before_the_probes(board) -> None:
    site = Site(board)
    site.measure("int4", 0.5)
    assert await site.choose() == "bf16"
    choice = await site.router.choose("minilm", Limits(max_latency_s=0.1))
    assert (
        choice.reason == "cheapest of 2 within the limits: p95 20.0 ms, quality 0.9900, 100 bytes"
    )


@pytest.mark.parametrize(("threads", "expected"), [(1, "bf16"), (None, "int4")])
async def test_requests_in_flight_turn_the_next_one_to_a_variant_with_cores_of_its_own(
    board, monkeypatch, threads, expected
) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: 4)
    site = Site(board, variants=[{"name": name, "threads": threads} for name in VARIANTS])
    limits = Limits(max_latency_s=0.035)
    site.measure("int4", 0.01)
    assert await site.choose(limits) == "int4"
    for _ in range(3):
        site.latencies.begin("minilm", "int4")
    assert await site.choose(limits) == expected


async def test_without_a_board_only_the_reference_s_quality_is_known() -> None:
    site = Site(None)
    assert await site.choose(Limits(min_quality=0.5)) == "fp32"
    assert await site.choose() == "fp32"


async def test_a_failing_variant_leaves(board) -> None:
    site = Site(board)
    board.failing.add("int4")
    assert await site.choose() == "bf16"


@pytest.fixture
def always_reads(monkeypatch) -> None:
    """Each choice has everything read for the next one."""
    monkeypatch.setattr(background_refresh, "MAX_AGE_S", -1)


async def next_choice(site: Site, limits: Limits = NO_LIMITS) -> str:
    """What is chosen by what has changed since."""
    await site.choose(limits)
    await let_others_act()
    choice = await site.choose(limits)
    await let_others_act()
    return choice


async def test_a_failing_variant_stays_away_until_a_new_process_has_judged_it(
    board, always_reads
) -> None:
    site = Site(board)
    board.failing = {"int4"}
    board.low["int4"] = 0.4
    assert await next_choice(site) == "bf16"
    board.unjudged = {"bf16", "int4"}  # as a new quality process says
    board.failing = set()
    assert [await next_choice(site) for _ in range(3)] == ["bf16"] * 3
    assert await next_choice(site, Limits(min_quality=0.99)) == "fp32"
    board.unjudged = set()
    assert await next_choice(site) == "int4"


async def test_a_variant_that_did_not_fail_is_not_held_back_by_a_new_process(
    board, always_reads
) -> None:
    site = Site(board)
    assert await next_choice(site) == "int4"
    board.unjudged = {"int4"}
    assert await next_choice(site) == "int4"
    assert await next_choice(site, Limits(min_quality=0.8)) == "bf16"


async def test_a_variant_that_runs_and_is_too_busy_to_say_so_stays(board, always_reads) -> None:
    site = Site(board)
    assert await next_choice(site) == "int4"
    site.silent = {"int4": 1}
    assert [await next_choice(site) for _ in range(3)] == ["int4"] * 3
    site.silent = {"int4": 0}
    assert await next_choice(site) == "bf16"
    site.silent = {"int4": 1}  # a new replica, which may be of another size
    assert await next_choice(site) == "bf16"
    site.silent = {}
    assert await next_choice(site) == "int4"


async def test_a_variant_that_has_failed_does_not_stay(board, always_reads) -> None:
    site = Site(board)
    assert await next_choice(site) == "int4"
    site.not_ready = {"int4": True}
    assert await next_choice(site) == "bf16"


async def test_a_variant_that_answers_only_errors_is_left(board) -> None:
    board.probe_s["int4"] = None
    site = Site(board)
    tight = Limits(max_latency_s=0.001)
    assert await site.choose(tight) == "int4"
    with pytest.raises(InternalError):
        site.fail("int4")
    assert await site.choose(tight) == "bf16"
    assert await site.choose(Limits(max_latency_s=0.025)) == "bf16"


async def test_an_unmeasured_variant_is_tried_by_one_request_at_a_time(board) -> None:
    board.probe_s["int4"] = None
    site = Site(board)
    tight = Limits(max_latency_s=0.001)
    assert await site.choose(tight) == "int4"
    call = site.latencies.begin("minilm", "int4")
    assert await site.choose(tight) == "bf16"
    site.latencies.end(call)
    assert await site.choose(tight) == "int4"


async def test_without_the_quality_process_only_the_first_request_ever_waits(
    board, always_reads, monkeypatch
) -> None:
    monkeypatch.setattr(module, "STATUSES_FORGOTTEN_AFTER_S", -1)  # as after a long silence
    monkeypatch.setattr(module, "QUALITY_FIRST_WAIT_S", 60)
    site = Site(board)
    with monkeypatch.context() as gone:
        gone.setattr(board, "report", None)
        await site.choose()
    board.answers.clear()
    async with asyncio.timeout(2):  # it would wait for a minute
        for _ in range(2):
            await site.choose()
            await let_others_act()


async def test_a_variant_that_is_not_ready_is_not_chosen(board) -> None:
    site = Site(board)
    site.not_ready = {"int4": False}
    assert await site.choose() == "bf16"


@pytest.mark.parametrize(("failed", "retry_after_s"), [(False, 5), (True, None)])
async def test_without_a_ready_variant_the_reasons_are_told(board, failed, retry_after_s) -> None:
    site = Site(board)
    site.not_ready = dict.fromkeys(VARIANTS, failed)
    with pytest.raises(NotReady) as caught:
        await site.choose()
    assert caught.value.message == (
        "minilm:auto: no variant is ready: fp32 (loading); bf16 (loading); int4 (loading)"
    )
    assert caught.value.retry_after_s == retry_after_s


async def test_before_any_state_is_known_nothing_is_chosen(board, monkeypatch) -> None:
    async def unreachable() -> list[VariantStatus]:
        raise TimeoutError

    model = {"name": "minilm", "task": "embeddings", "source": "hf:a/b", "variants": ["fp32"]}
    config = ModelConfig.model_validate(model)
    router = AutoRouter([config], unreachable, Latencies(), board)
    with pytest.raises(NotReady, match=r"no variant is ready: fp32 \(not known yet\)") as caught:
        await router.choose("minilm", NO_LIMITS)
    assert caught.value.retry_after_s == 5


async def test_a_strict_model_refuses_with_the_table(board) -> None:
    site = Site(board, slo_policy="strict")
    site.not_ready = {"int4": False}
    with pytest.raises(NotReady) as caught:
        await site.choose(Limits(max_latency_s=0.001))
    assert caught.value.message == (
        "minilm:auto: no variant meets max_latency_ms 1: "
        "fp32 (p95 30.0 ms, quality 1.0000, 100 bytes); "
        "bf16 (p95 20.0 ms, quality 0.9900, 100 bytes); not ready: int4"
    )
    assert await site.choose(Limits(max_latency_s=0.1)) == "bf16"


async def test_the_same_model_takes_the_nearest_by_default(board) -> None:
    choice = await Site(board).router.choose("minilm", Limits(max_latency_s=0.001))
    assert (choice.variant, choice.missed) == ("int4", ("max_latency_ms",))


async def test_the_last_choice_for_the_same_limits_stays_if_it_is_hardly_dearer(board) -> None:
    board.probe_s = {"fp32": 0.03, "bf16": 0.0100, "int4": 0.0101}
    site = Site(board)
    assert await site.choose() == "bf16"
    site.measure("bf16", 0.0105)
    assert await site.choose() == "bf16"
    # Other limits have no last choice yet.
    assert await site.choose(Limits(min_quality=0.5)) == "int4"


async def test_the_last_choices_of_few_limits_only_are_remembered(board, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)
    board.probe_s = {"fp32": 0.03, "bf16": 0.0100, "int4": 0.0101}
    site = Site(board)
    first, second, third = (Limits(min_quality=low) for low in (0.1, 0.2, 0.3))
    for limits in (first, second, first, third):
        await site.choose(limits)
    site.measure("bf16", 0.0105)
    assert await site.choose(first) == "bf16"
    assert await site.choose(second) == "int4"


@pytest.mark.parametrize(
    ("variants", "expected"),
    [
        ([{"name": "fp32", "threads": 1}, "int4"], "fp32"),  # 0.03 × ¼ beside 0.01
        ([{"name": "fp32", "threads": 2}, "int4"], "int4"),
        ([{"name": "fp32", "threads": 9}, {"name": "int4", "threads": 9}], "int4"),
    ],
)
async def test_the_share_of_the_cores_counts(board, monkeypatch, variants, expected) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: 4)
    assert await Site(board, variants=variants).choose() == expected


async def test_a_choice_asks_nobody_while_the_answers_are_new(board) -> None:
    site = Site(board)
    for _ in range(10):
        await site.choose()
    await let_others_act()
    assert (site.asked, board.reports) == (1, 1)


async def test_a_board_that_hangs_holds_no_choice_up(board, monkeypatch) -> None:
    monkeypatch.setattr(module, "QUALITY_FIRST_WAIT_S", 0.01)
    board.answers.clear()
    site = Site(board)
    assert await site.choose(Limits(min_quality=0.5)) == "fp32"
    board.answers.set()
    await let_others_act()
    assert await site.choose(Limits(min_quality=0.5)) == "int4"


async def test_the_last_quality_holds_while_the_board_is_gone(board, monkeypatch) -> None:
    site = Site(board)
    assert await site.choose(Limits(min_quality=0.95)) == "bf16"
    monkeypatch.setattr(background_refresh, "MAX_AGE_S", -1)
    monkeypatch.setattr(board, "report", None)
    for _ in range(3):
        assert await site.choose(Limits(min_quality=0.95)) == "bf16"
        await let_others_act()
