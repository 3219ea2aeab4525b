"""The one record of a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from fastapi import Request

from serving.metrics import Labels
from serving.seams import AutoChoice


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
    """

    request_id: str
    labels: Labels | None = None
    choice: AutoChoice | None = None
    is_asked: bool = False
    phases: dict[str, float] = field(default_factory=dict)
    failure: int | None = None

    def phases_of(self, total: float) -> list[tuple[str, float]]:
        """Name and seconds of each phase, and of the whole, for people."""
        return [*self.phases.items(), ("total", total)]


def record_of(request: Request) -> Record:
    """Return the record of ``request``."""
    return cast(Record, request.state.record)
