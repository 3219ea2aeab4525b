"""The log of a run: one line for each request, as a client sees it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Path(StrEnum):
    """How a request finds its variant."""

    SELECTING = "selecting"
    """By the gateway, which looks the variant up."""

    DIRECT = "direct"
    """By the variant's own path, from HAProxy to the replica."""


class Fate(StrEnum):
    """What a request came to."""

    RIGHT = "right"
    """The known answer of the variant that was asked."""

    WRONG = "wrong"
    """A success with any other answer, such as another variant's."""

    REFUSED = "refused"
    """429 or 503 in the service's own shape, which says that it may be sent again."""

    LOST = "lost"
    """No answer, or any other error."""


@dataclass(frozen=True, slots=True)
class SentRequest:
    """One request of the load; times are seconds of one clock.

    Attributes:
        path: How it was sent.
        variant: Which variant it named, as ``MODEL:VARIANT``.
        sent: When it should go out.
        ended: When the whole answer was there, or the error.
        fate: What it came to.
        reason: Why it is not right; empty if it is.
    """

    path: Path
    variant: str
    sent: float
    ended: float
    fate: Fate
    reason: str = ""
