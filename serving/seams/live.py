"""What moves in the service, told to whoever listens."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Topic = Literal["states", "figures", "quality"]
"""What an event is of: the variants' states, what was measured of them, what is known of their
quality."""


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """What changed since the last event of its topic; the first one has all that is known.

    Attributes:
        topic: See ``Topic``.
        at: When it was seen, in seconds since 1970.
        entries: Those that changed, each whole and with the ``model`` that it is of.
    """

    topic: Topic
    at: float
    entries: Sequence[Mapping[str, Any]]


class LiveFeed(Protocol):
    """Tells what moves. It looks only while somebody listens."""

    def listen(self) -> AsyncGenerator[LiveEvent | None, None]:
        """Tell all that is known, then what changes, until the caller closes it, or it ends itself.

        None comes where nothing has changed for a while, so that a listener that is gone is found.

        Raises:
            QueueFull: As many listen as may.
        """
