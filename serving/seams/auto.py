"""What a request asks of ``auto``, and what it gets: limits instead of a variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Limits:
    """What the chosen variant has to meet; None is no limit.

    Attributes:
        max_latency_s: Most seconds until the answer (where text is generated: until its end), met
            by 95 of 100 requests.
        min_quality: Least agreement with the reference, 0 to 1, that is certain.
        max_weights_bytes: Largest packed size of the weights.
    """

    max_latency_s: float | None = None
    min_quality: float | None = None
    max_weights_bytes: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class AutoChoice:
    """The variant that answers a request.

    Attributes:
        variant: Its name.
        reason: Why it was chosen: one short line of ASCII.
        missed: Limits that it does not meet, by their names in a request.
    """

    variant: str
    reason: str
    missed: tuple[str, ...]


class VariantChooser(Protocol):
    """Chooses the variant of a request that leaves the choice to the service."""

    async def choose(self, model: str, limits: Limits) -> AutoChoice:
        """Choose a variant of a model that the configuration names.

        Raises:
            NotReady: No variant is ready, or none may be chosen; the message says what each offers.
        """
