"""What the gateway measures of its own calls, and foresees from it."""

from collections import deque
from dataclasses import astuple

import pytest

from serving.errors import DeadlineExceeded, InputFails, InternalError, QueueFull
from serving.gateway.elsewhere import MAX_SAMPLES, WINDOW_S
from serving.gateway.latencies import LOAD_S, SUMMARY_MAX_AGE_S, Figures, Latencies

NAME = ("minilm", "int4")
TIMEOUT_S = 30.0


class Clock:
    """Time that passes only when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """Latencies on a clock, with calls that end when a test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.latencies = Latencies(self.clock)

    def call(self, total_s: float, queue_s: float = 0) -> None:
        """A call that nobody shares the variant with."""
        with self.latencies.measuring(*NAME, TIMEOUT_S) as call:
            self.clock.now += total_s
            self.latencies.answered(call, queue_s)

    def fail(self, after_s: float, error: Exception) -> None:
        """A call that ends with an error."""
        with self.latencies.measuring(*NAME, TIMEOUT_S):
            self.clock.now += after_s
            raise error

    def figures(self) -> Figures | None:
        """Of everything so far."""
        self.clock.now += 1.01 * SUMMARY_MAX_AGE_S
        return self.latencies.figures(*NAME)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_before_a_call_has_ended_nothing_is_known(bench) -> None:
    assert bench.figures() is None
    bench.latencies.begin(*NAME)
    assert bench.figures() is None


def test_of_an_idle_variant_the_95th_percentile_and_the_mean_are_known(bench) -> None:
    for milliseconds in range(1, 101):
        bench.call(milliseconds / 1e3)
        bench.clock.now += 1  # idleness counts for nothing
    assert astuple(bench.figures()) == pytest.approx((0.095, 0.0505, 100))


def test_other_variants_and_models_are_kept_apart(bench) -> None:
    bench.call(0.01)
    assert bench.latencies.figures("minilm", "fp32") is None
    assert bench.latencies.figures("sentiment", "int4") is None


def serve_one_after_the_other(bench: Bench, arrivals: int, service_s: float) -> None:
    """Let so many requests come at once to a variant that answers one at a time."""
    calls = deque(bench.latencies.begin(*NAME) for _ in range(arrivals))
    began = bench.clock.now
    while calls:
        call = calls.popleft()
        queue_s = bench.clock.now - began
        bench.clock.now += service_s
        bench.latencies.answered(call, queue_s)


@pytest.mark.parametrize("arrivals", [1, 2, 100])
@pytest.mark.parametrize("in_flight", [0, 1, 120])
def test_the_wait_behind_requests_in_flight_is_foreseen(bench, arrivals, in_flight) -> None:
    serve_one_after_the_other(bench, arrivals, service_s=0.01)
    for _ in range(in_flight):
        bench.latencies.begin(*NAME)
    was = 0.01 * (95 if arrivals == 100 else 1)
    will_be = 0.01 * (1 + in_flight)
    assert bench.figures().p95_s == pytest.approx(max(was, will_be))


def test_requests_in_flight_are_always_the_present_ones(bench) -> None:
    serve_one_after_the_other(bench, 2, service_s=0.01)
    bench.latencies.begin(*NAME)
    before = bench.figures()
    bench.latencies.begin(*NAME)
    after = bench.latencies.figures(*NAME)
    assert after.p95_s - before.p95_s == pytest.approx(0.01)


def test_who_shares_a_pass_does_not_wait(bench) -> None:
    calls = [bench.latencies.begin(*NAME) for _ in range(8)]
    bench.clock.now += 0.04
    for call in calls:
        bench.latencies.answered(call, queue_s=0)
    for _ in range(8):
        bench.latencies.begin(*NAME)
    assert bench.figures().p95_s == pytest.approx(0.04)


def test_waiting_behind_the_direct_path_counts(bench) -> None:
    for _ in range(10):
        bench.call(0.05, queue_s=0.04)
    bench.clock.now += 9 * LOAD_S
    assert bench.figures().p95_s == pytest.approx(0.05)


def test_only_calls_that_had_the_machine_for_themselves_tell_the_service_time(bench) -> None:
    serve_one_after_the_other(bench, 3, service_s=0.02)
    assert bench.figures().service_s is None
    bench.call(0.01)
    with bench.latencies.measuring("sentiment", "fp32", TIMEOUT_S):
        bench.call(0.03)  # begins beside another
    with bench.latencies.measuring(*NAME, TIMEOUT_S) as call:
        bench.latencies.begin("sentiment", "fp32")  # another begins beside it
        bench.clock.now += 0.03
        bench.latencies.answered(call, queue_s=0)
    assert bench.figures().service_s == pytest.approx(0.01)


def test_calls_that_ended_long_ago_are_forgotten(bench) -> None:
    bench.call(1)
    bench.call(1)
    bench.clock.now += WINDOW_S / 2
    bench.call(0.01)
    assert bench.figures().p95_s == pytest.approx(1)
    bench.clock.now += WINDOW_S / 2
    assert bench.figures().p95_s == pytest.approx(0.01)
    bench.clock.now += WINDOW_S
    assert bench.figures() is None


def test_waits_behind_other_calls_count_until_the_load_is_clearly_lower(bench) -> None:
    serve_one_after_the_other(bench, 20, service_s=0.01)
    waited = bench.figures().p95_s
    assert waited > 0.15
    # Nothing is sent to the variant any more, but as much as before to another one.
    for _ in range(200):
        with bench.latencies.measuring("sentiment", "fp32", TIMEOUT_S):
            bench.clock.now += 0.1
    assert bench.figures().p95_s == waited
    bench.clock.now += 2 * LOAD_S
    assert bench.figures().p95_s == pytest.approx(0.01)


def test_a_single_slow_call_among_few_is_no_percentile(bench) -> None:
    for total_s in (0.01, 0.01, 5):
        bench.call(total_s)
    assert bench.figures().p95_s == pytest.approx(0.01)


def test_only_the_latest_calls_are_remembered(bench) -> None:
    bench.call(1)
    for _ in range(MAX_SAMPLES):
        bench.call(0.001)
    assert bench.figures().service_s == pytest.approx(0.001)


def test_a_refused_call_teaches_nothing_and_is_in_flight_no_more(bench) -> None:
    bench.call(0.01)
    before = bench.figures()
    with pytest.raises(QueueFull):
        bench.fail(0.5, QueueFull("full"))
    assert bench.figures() == before


def test_a_call_that_runs_into_its_deadline_took_that_long(bench) -> None:
    with pytest.raises(DeadlineExceeded):
        bench.fail(30, DeadlineExceeded("no answer within 30 s"))
    assert bench.figures().p95_s == pytest.approx(30)


@pytest.mark.parametrize("error", [InternalError, InputFails])
def test_a_call_that_fails_took_all_its_time_and_cost_it(bench, error) -> None:
    bench.latencies.begin("sentiment", "fp32")  # not alone
    for _ in range(2):
        with pytest.raises(error):
            bench.fail(0.001, error("it fails"))
    assert bench.figures() == Figures(p95_s=TIMEOUT_S, service_s=TIMEOUT_S, count=2)


def test_requests_in_flight_are_counted_before_anything_is_known(bench) -> None:
    assert bench.latencies.in_flight(*NAME) == 0
    call = bench.latencies.begin(*NAME)
    bench.latencies.begin("sentiment", "fp32")
    assert bench.latencies.in_flight(*NAME) == 1
    bench.latencies.end(call)
    assert bench.latencies.in_flight(*NAME) == 0


def test_a_time_that_is_given_counts_in_place_of_the_clock_s(bench) -> None:
    with bench.latencies.measuring(*NAME, TIMEOUT_S) as call:
        bench.latencies.answered(call, queue_s=1, total_s=3)
        bench.clock.now += 60  # a client that reads slowly
    assert astuple(bench.figures()) == pytest.approx((3, 2, 1))
