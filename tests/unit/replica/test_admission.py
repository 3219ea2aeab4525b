"""Who is let in, and when."""

from __future__ import annotations

import pytest

from serving.errors import QueueFull
from serving.replica.admission import BACKGROUND_BOUND_S, Admission


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock) -> Admission:
    return Admission(lambda seconds: None, clock)


def test_background_requests_are_let_in_one_by_one_while_nobody_else_is_there(admission) -> None:
    with admission.admit(background=True):
        assert admission.in_flight == 0
        with pytest.raises(QueueFull), admission.admit(background=True):
            pass
        with admission.admit(background=False):
            assert admission.in_flight == 1
    with admission.admit(background=True):
        pass


def test_beside_others_one_is_let_in_some_time_after_it_was_refused(admission, clock) -> None:
    with admission.admit(background=False):
        for _ in range(2):
            for wait_s in (0, BACKGROUND_BOUND_S - 0.01):
                clock.now += wait_s
                with pytest.raises(QueueFull), admission.admit(background=True):
                    pass
            clock.now += 0.02
            with admission.admit(background=True):
                pass


def test_a_second_one_is_not_let_in_however_long_it_waits(admission, clock) -> None:
    with admission.admit(background=True):
        for wait_s in (0, 10 * BACKGROUND_BOUND_S):
            clock.now += wait_s
            with pytest.raises(QueueFull), admission.admit(background=True):
                pass


def test_time_is_busy_while_somebody_waits_however_many_do(clock) -> None:
    noted: list[float] = []
    admission = Admission(noted.append, clock)
    clock.now = 10
    with admission.admit(background=True):
        clock.now = 13
    assert sum(noted) == 0
    with admission.admit(background=False):
        clock.now = 14
        with admission.admit(background=False):
            clock.now = 16
        assert sum(noted) == 3  # told as it passes, though the first one is there still
        clock.now = 17
    clock.now = 30
    with admission.admit(background=False):
        clock.now = 31
    assert sum(noted) == 5


def test_a_request_that_fails_was_busy_time_too(clock) -> None:
    noted: list[float] = []
    admission = Admission(noted.append, clock)

    def fail() -> None:
        clock.now = 2
        raise ValueError("it")

    with pytest.raises(ValueError, match="it"), admission.admit(background=False):
        fail()
    assert sum(noted) == 2
    assert admission.in_flight == 0
