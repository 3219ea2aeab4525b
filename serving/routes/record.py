"""The one record of a request."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import cast

from fastapi import Request

from serving.errors import BodyTooSlow, DeadlineExceeded
from serving.metrics import Labels
from serving.seams import AutoChoice, GenerationRequest


@dataclass(slots=True)
class Record:
    """What is learnt of a request on its way; feeds headers, metrics and the log line.

    Attributes:
        request_id: The client's, or one of our own.
        labels: The variant that answers, once it is known; ``auto`` until it is chosen.
        choice: Why it answers, if ``auto`` chose it.
        is_asked: Whether a backend was asked, so that the request is one that was worked on.
        phases: Where the time has gone, in seconds, as far as it is known.
        failure: Status of an error that came after the status was sent, and that the request is
            counted under.
        arrived: When its head did, by ``time.perf_counter``.
        body_s: Seconds until its body was there.
    """

    request_id: str
    labels: Labels | None = None
    choice: AutoChoice | None = None
    is_asked: bool = False
    phases: dict[str, float] = field(default_factory=dict)
    failure: int | None = None
    arrived: float = field(default_factory=time.perf_counter)
    body_s: float = 0.0

    def time_left(self, limit_s: float) -> float:
        """Seconds that are left of a limit, which begins when the request arrives.

        In whole tenths, rounded up: people are told them, and most requests arrive at once.

        Raises:
            BodyTooSlow: Nothing is left, and most of it went by while the body arrived.
            DeadlineExceeded: Nothing is left.
        """
        left_s = limit_s - (time.perf_counter() - self.arrived)
        if left_s <= 0:
            kind = BodyTooSlow if self.body_s > limit_s / 2 else DeadlineExceeded
            raise kind(
                f"no time was left for an answer within {limit_s:g} s: the body took "
                f"{self.body_s:.3g} s to arrive"
            )
        return min(math.ceil(left_s * 10) / 10, limit_s)

    def within_time(self, request: GenerationRequest) -> GenerationRequest:
        """The same request with what is left of its limits; raises as ``time_left``."""
        return replace(
            request,
            first_token_timeout_s=self.time_left(request.first_token_timeout_s),
            timeout_s=self.time_left(request.timeout_s),
        )

    def phases_of(self, total: float) -> list[tuple[str, float]]:
        """Name and seconds of each phase, and of the whole, for people."""
        return [*self.phases.items(), ("total", total)]


def record_of(request: Request) -> Record:
    """Return the record of ``request``."""
    return cast(Record, request.state.record)
