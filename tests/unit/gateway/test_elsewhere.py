"""What gateways tell each other of their calls, and what each foresees from all of them."""

from dataclasses import astuple

import pytest

from serving.errors import InternalError
from serving.gateway.elsewhere import MAX_SAMPLES, PRESENT_S, WINDOW_S
from serving.gateway.latencies import LOAD_S, SUMMARY_MAX_AGE_S, Figures, Latencies

NAME = ("minilm", "int4")
TIMEOUT_S = 30.0


class World:
    """Time, which passes only when a test says so."""

    now = 100.0


class Gateway:
    """One gateway; ``ahead_s`` is what its clock shows more than the others'."""

    def __init__(self, world: World, name: str, ahead_s: float = 0) -> None:
        self.world = world
        self.name = name
        self.latencies = Latencies(lambda: world.now + ahead_s)

    def call(self, total_s: float, queue_s: float = 0, name: tuple[str, str] = NAME) -> None:
        with self.latencies.measuring(*name, TIMEOUT_S) as call:
            self.world.now += total_s
            self.latencies.answered(call, queue_s)

    def learn_from(self, *others: "Gateway") -> None:
        told = self.latencies.told
        self.latencies.learn(
            [other.latencies.report(other.name, told.get(other.name, 0)) for other in others]
        )

    def figures(self) -> Figures:
        self.world.now += 1.01 * SUMMARY_MAX_AGE_S
        figures = self.latencies.figures(*NAME)
        assert figures is not None
        return figures


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def one(world) -> Gateway:
    return Gateway(world, "one")


@pytest.fixture
def other(world) -> Gateway:
    """On a node that started at another time."""
    return Gateway(world, "other", ahead_s=5_000)


def test_what_one_has_measured_the_other_knows(one, other) -> None:
    for milliseconds in range(1, 101):  # within the window
        (one if milliseconds % 2 else other).call(milliseconds / 1e3)
        one.world.now += 1
    one.learn_from(other)
    other.learn_from(one)
    for gateway in (one, other):
        assert astuple(gateway.figures()) == pytest.approx((0.095, 0.0505, 100))


def test_a_gateway_without_calls_knows_those_of_the_others(one, other) -> None:
    other.call(0.01)
    assert one.latencies.figures(*NAME) is None
    one.learn_from(other)
    assert one.figures().p95_s == pytest.approx(0.01)


def test_what_was_told_is_told_once(one, other) -> None:
    other.call(0.01)
    one.learn_from(other)
    one.learn_from(other)
    assert one.figures().count == 1
    other.call(0.03)
    one.learn_from(other)
    assert one.figures().count == 2


def test_a_report_that_got_lost_is_told_again(one, other) -> None:
    other.call(0.01)
    other.latencies.report(other.name, 0)
    other.call(0.02)
    one.learn_from(other)
    assert one.figures().count == 2


def test_requests_in_flight_at_the_others_are_foreseen_like_one_s_own(one, other) -> None:
    one.call(0.01)
    for _ in range(3):
        other.latencies.begin(*NAME)
    one.learn_from(other)
    assert one.latencies.in_flight(*NAME) == 3
    assert one.figures().p95_s == pytest.approx(0.04)
    own = one.latencies.begin(*NAME)
    assert own.ahead == 3
    assert one.latencies.in_flight(*NAME) == 4


def test_a_gateway_that_tells_nothing_any_more_has_nothing_in_flight(one, other, world) -> None:
    other.call(0.01)
    other.latencies.begin(*NAME)
    one.learn_from(other)
    world.now += 1.01 * PRESENT_S
    assert one.latencies.in_flight(*NAME) == 0
    assert one.figures().count == 1
    world.now += 1.01 * WINDOW_S
    one.learn_from()
    assert one.latencies.told == {}
    assert one.latencies.figures(*NAME) is None


def test_the_service_time_is_of_calls_that_had_the_machine_for_themselves(
    one, other, world
) -> None:
    one.call(0.01)
    with other.latencies.measuring("sentiment", "fp32", TIMEOUT_S) as beside:
        one.call(0.05)
        other.latencies.answered(beside, 0)
    world.now += 1
    other.call(0.03)
    one.learn_from(other)
    other.learn_from(one)
    for gateway in (one, other):
        assert gateway.figures().service_s == pytest.approx(0.02)
    assert other.latencies.figures("sentiment", "fp32").service_s is None


def test_a_call_that_failed_costs_its_timeout_whoever_was_there(one, other) -> None:
    def fail_beside_a_call() -> None:
        with other.latencies.measuring(*NAME, TIMEOUT_S):
            one.call(0.01)
            raise InternalError("its engine is broken")

    with pytest.raises(InternalError):
        fail_beside_a_call()
    one.learn_from(other)
    assert one.figures().service_s == TIMEOUT_S


def test_a_wait_counts_as_long_as_the_load_that_all_make_together_lasts(one, other, world) -> None:
    def load() -> None:
        for _ in range(20):
            other.latencies.end(other.latencies.begin(*NAME))
        one.learn_from(other)

    load()
    found = one.latencies.begin(*NAME)
    call = one.latencies.begin(*NAME)
    world.now += 0.2
    one.latencies.answered(call, queue_s=0.18)
    one.latencies.end(found)
    world.now += 4 * LOAD_S
    load()
    assert one.figures().p95_s == pytest.approx(0.2)
    world.now += 4 * LOAD_S
    one.learn_from(other)
    assert one.figures().p95_s == pytest.approx(0.02)


def test_what_is_told_and_remembered_is_bounded(one, other) -> None:
    for _ in range(2 * MAX_SAMPLES):
        other.call(0.001)
    report = other.latencies.report(other.name, 0)
    assert len(report.samples[NAME]) == MAX_SAMPLES
    one.learn_from(other)
    for _ in range(10):
        other.call(0.001)
    one.learn_from(other)
    assert one.figures().count == MAX_SAMPLES
