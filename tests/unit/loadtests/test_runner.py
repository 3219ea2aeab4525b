"""Whole runs: who takes turns, what is joined into a result, and when it is not valid."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.cli import summary_table
from loadtests.plan import LoadPlan
from loadtests.report.document import report
from loadtests.results import Results
from loadtests.runner import run_plan
from loadtests.scenario_run import TurnName
from serving.errors import ConfigError
from tests.unit.loadtests.plans import make_plan

HERE = Path(__file__).parent


async def run(plan: LoadPlan, **options: Any) -> Results:
    return await run_plan(plan, HERE, lambda *_: None, **options)


async def test_variants_take_turns_on_the_same_inputs_at_the_same_times(server) -> None:
    results = await run(make_plan(server.url, rounds=2))
    order = [body["model"] for body in server.arrived]
    assert sorted(order[:40]) == ["m:fp32"] * 20 + ["m:int4"] * 20
    assert sum(a != b for a, b in pairwise(order)) in (2, 3)
    texts: dict[str, list[str]] = {"m:fp32": [], "m:int4": []}
    for body in server.arrived:
        texts[body["model"]].append(body["input"])
    assert sorted(texts["m:fp32"]) == sorted(texts["m:int4"])
    assert len(set(texts["m:fp32"])) == 40
    int4, fp32 = results.scenarios[0].variants
    np.testing.assert_allclose(int4.samples.planned, fp32.samples.planned, atol=1e-6)


async def test_a_result_holds_what_clients_and_server_saw(server) -> None:
    plan = make_plan(server.url, {"slo": {"latency_ms": 60_000}}, rounds=2)
    results = await run(plan)
    scenario = results.scenarios[0]
    int4, fp32 = scenario.variants
    assert scenario.reference == "fp32"
    assert (fp32.is_reference, fp32.agreement) == (True, None)
    assert int4.agreement is not None
    assert int4.agreement.estimate.value == pytest.approx(0.6)
    assert (int4.planned, int4.ok, int4.cut_off, int4.errors) == (32, 32, 0, {})
    assert int4.offered_rate.value == pytest.approx(80)
    assert int4.slo_attainment is not None
    assert int4.slo_attainment.value == 1
    assert int4.latency is not None
    assert int4.latency.count == 32
    assert int4.ttft is None
    server_side = int4.server
    assert server_side.queue is not None
    assert server_side.queue.value == pytest.approx(0.002)
    assert (server_side.weights_bytes, server_side.recipe) == (1000, "as trained")
    unknown = (server_side.tokenize, server_side.resident_bytes, server_side.replica_cpu)
    assert unknown == (None, None, None)


@pytest.mark.parametrize(
    ("operation", "measure", "value"),
    [("classify", "same_label", 0), ("completions", "same_text", 0)],
)
async def test_other_operations_agree_in_their_own_way(server, operation, measure, value) -> None:
    results = await run(make_plan(server.url, operation=operation))
    found = results.scenarios[0].variants[0].agreement
    assert found is not None
    assert (found.measure, found.estimate.value, found.pairs) == (measure, value, 16)
    if operation == "completions":
        assert found.common_prefix is not None
        assert found.common_prefix.value == pytest.approx(8 / 13)
        tokens = results.scenarios[0].variants[0].output_tokens_per_s
        assert tokens is not None
        assert tokens.value > 0


async def test_without_the_server_s_reference_nothing_is_compared(server) -> None:
    results = await run(make_plan(server.url, {"variants": ["int4"]}))
    [scenario] = results.scenarios
    [int4] = scenario.variants
    assert scenario.reference == "fp32"
    assert (int4.is_reference, int4.agreement) == (False, None)
    named = await run(make_plan(server.url, {"variants": ["int4"], "reference": "int4"}))
    assert named.scenarios[0].variants[0].is_reference


async def test_another_server_says_nothing_of_itself(server) -> None:
    server.is_known = False
    results = await run(make_plan(server.url, {"variants": ["int4", "fp32"]}))
    first = results.scenarios[0].variants[0]
    assert (first.variant, first.is_reference) == ("int4", True)
    assert first.ok == 16
    assert set(first.server.model_dump().values()) == {None}


async def test_lag_makes_a_run_invalid(server) -> None:
    """The server blocks the event loop that it shares with the generator."""
    taken = server.take

    async def take(request: Any) -> str:
        time.sleep(0.05)  # noqa: ASYNC251
        return str(await taken(request))

    server.take = take
    results = await run(make_plan(server.url, {"variants": ["fp32"]}))
    variant = results.scenarios[0].variants[0]
    assert variant.lag_share is not None
    assert variant.lag_share > 0.1
    assert not results.is_valid
    assert results.problems[0].startswith("m, fp32: the generator lagged: its p99 is")


async def test_a_run_without_answers_is_not_valid(server) -> None:
    server.status = 500
    results = await run(make_plan(server.url, {"variants": ["fp32"]}))
    variant = results.scenarios[0].variants[0]
    assert variant.latency is None
    assert variant.errors == {"http_500": 16}
    assert results.problems == ("m, fp32: no request was answered with success",)


async def test_a_server_without_the_last_event_of_streams_is_hinted_at(server) -> None:
    server.stream = b'data: {"choices": [{"text": "a", "finish_reason": "stop"}]}\n\n'
    results = await run(make_plan(server.url, {"variants": ["fp32"]}, operation="completions"))
    [problem] = results.problems
    assert "no request was answered with success: 16 streams ended without the event" in problem
    assert "data: [DONE]" in problem


async def test_what_is_not_sent_makes_a_run_invalid(server) -> None:
    server.release.clear()
    plan = make_plan(server.url, {"variants": ["fp32"]}, max_in_flight=1, grace_s=0)
    assert (await run(plan)).problems == (
        "m, fp32: no longer an open loop: 16 not sent, raise max_in_flight",
        "m, fp32: no request was answered with success",
    )


def cancel_when(server: Any, is_time: Callable[[], bool]) -> None:
    """Cancel the test's own run, as Ctrl-C does, when a request arrives at that time."""
    running = asyncio.current_task()
    assert running is not None
    taken = server.take

    async def take(request: Any) -> str:
        if is_time():
            running.cancel()
        return str(await taken(request))

    server.take = take


@pytest.mark.parametrize(("at", "number", "rounds"), [(25, 1, [1]), (50, 2, [1, 1])])
async def test_what_was_found_survives_an_interruption(server, at, number, rounds) -> None:
    cancel_when(server, lambda: len(server.arrived) == at)
    results = await run(make_plan(server.url, rounds=3))
    assert results.problems[0] == f"interrupted in round {number}"
    variants = results.scenarios[0].variants
    assert [len(np.unique(variant.samples.round)) for variant in variants] == rounds
    assert "NOT VALID" in report(results).markdown


async def test_an_interruption_before_the_first_result_ends_the_run(server) -> None:
    cancel_when(server, lambda: len(server.arrived) == 5)
    with pytest.raises(asyncio.CancelledError):
        await run(make_plan(server.url))


async def test_a_late_error_does_not_lose_what_was_found(server) -> None:
    taken = server.take

    async def take(request: Any) -> str:
        if len(server.arrived) == 45:
            server.metrics_page = b"\xff"
        return str(await taken(request))

    server.take = take
    results = await run(make_plan(server.url, rounds=2))
    assert results.problems[0].startswith("interrupted in round 2: UnicodeDecodeError")
    assert [variant.ok for variant in results.scenarios[0].variants] == [16, 16]


async def test_peaks_survive_an_interruption(server) -> None:
    scenario = {"slo": {"latency_ms": 1e-6}, "arrivals": {"kind": "constant", "rate": 500}}
    plan = make_plan(server.url, scenario, duration_s=0.01, warmup_s=0, max_lag_share=1)
    # The search begins with int4, after five requests of each.
    cancel_when(
        server,
        lambda: len(server.arrived) > 10 and server.arrived[-1]["model"] == "m:fp32",
    )
    results = await run(plan, find_peaks=True)
    assert "interrupted in the search for the peaks" in results.problems
    assert [peak.variant for peak in results.scenarios[0].peaks] == ["int4"]
    assert "int4 none" in report(results).markdown
    assert summary_table(results.scenarios[0]).row_count == 2


async def test_a_peak_is_searched(server) -> None:
    """No answer is quick enough, so the search ends below every rate that it may try."""
    plan = make_plan(
        server.url,
        {
            "variants": ["fp32"],
            "slo": {"latency_ms": 1e-6},
            "arrivals": {"kind": "constant", "rate": 500},
        },
        duration_s=0.01,
        warmup_s=0,
        max_lag_share=1,
    )
    results = await run(plan, find_peaks=True)
    peaks = results.scenarios[0].peaks
    assert [peak.variant for peak in peaks] == ["fp32"]
    assert peaks[0].rate is None
    assert "0.0% met the SLO (at least 99.0%)" in {probe.why_not for probe in peaks[0].probes}


async def test_variants_are_probed_with_the_same_requests(server) -> None:
    """No answer is quick enough for either, so that both are tried at the same rates."""
    scenario = {"slo": {"latency_ms": 1e-6}, "arrivals": {"kind": "poisson", "rate": 500}}
    plan = make_plan(server.url, scenario, duration_s=0.01, warmup_s=0, max_lag_share=1)
    await run(plan, find_peaks=True)
    texts: dict[str, list[str]] = {"m:fp32": [], "m:int4": []}
    for body in server.arrived:
        texts[body["model"]].append(body["input"])
    assert len(texts["m:fp32"]) > 20
    assert sorted(texts["m:fp32"]) == sorted(texts["m:int4"])


async def test_a_generator_that_limits_the_peak_leaves_the_rounds_valid(server) -> None:
    scenario = {
        "variants": ["fp32"],
        "slo": {"latency_ms": 60_000},
        "arrivals": {"kind": "constant", "rate": 50},
    }
    limits: dict[str, Any] = {"max_in_flight": 1, "max_lag_share": 1}
    plan = make_plan(server.url, scenario, duration_s=0.02, warmup_s=0, **limits)
    results = await run(plan, find_peaks=True)
    (peak,) = results.scenarios[0].peaks
    assert peak.note.startswith("the generator was the limit at ")
    assert "no longer an open loop" in peak.note
    assert results.is_valid


async def test_the_observer_hears_of_every_turn(server) -> None:
    heard: list[TurnName] = []
    plan = make_plan(server.url, {"variants": ["int4"]}, duration_s=1.2)
    await run_plan(plan, HERE, lambda name, _: heard.append(name))
    assert heard[0] == TurnName("m", "int4", "round 1 of 1", 1.2)


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ({"model": "x"}, "scenario 'x': the server has no model 'x'; served: m"),
        ({"variants": ["bf16"]}, "scenario 'm': m has no variant 'bf16'; served: int4, fp32"),
        ({"inputs": {"file": "none.jsonl"}}, "none.jsonl: no such file"),
        ({"arrivals": {"kind": "replay", "file": "none.txt"}}, "none.txt: no such file"),
    ],
)
async def test_what_cannot_run_is_refused_before_the_first_request(
    server, scenario, message
) -> None:
    with pytest.raises(ConfigError, match=message):
        await run(make_plan(server.url, scenario))
    assert not server.arrived


async def test_a_server_that_lists_nothing_needs_names(server) -> None:
    server.is_known = False
    with pytest.raises(ConfigError, match="scenario 'm': name its variants"):
        await run(make_plan(server.url))


async def test_a_peak_needs_a_limit_and_a_rate(server) -> None:
    with pytest.raises(ConfigError, match="slo: a peak needs a limit"):
        await run(make_plan(server.url), find_peaks=True)
    closed = {"arrivals": {"kind": "closed", "users": 1}, "slo": {"latency_ms": 1}}
    with pytest.raises(ConfigError, match=r"arrivals\.kind: a peak needs constant"):
        await run(make_plan(server.url, closed), find_peaks=True)


async def test_no_server_is_a_plain_message() -> None:
    with pytest.raises(ConfigError, match=r"target\.url: http://127\.0\.0\.1:1 does not answer"):
        await run(make_plan())
