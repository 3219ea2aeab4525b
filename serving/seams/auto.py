"""What a request asks of ``auto``, and what it gets: limits instead of a variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


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


@dataclass(frozen=True, slots=True)
class Considered:
    """One variant, as ``auto`` sees it for some limits.

    Attributes:
        out: Why it is not chosen from, in words; empty if it is.
        missed: Limits that it does not meet, by their names in a request.
        p95_latency_s: As of ``Candidate``, like the fields after it; None while it is not ready.
        origin: Where the latency comes from: requests of the last minutes, or single probes.
        num_measured: So many of them.
    """

    variant: str
    out: str
    missed: tuple[str, ...]
    p95_latency_s: float | None
    cost_s: float | None
    quality_low: float | None
    weights_bytes: int | None
    in_flight: int
    origin: Literal["requests", "probes"] | None
    num_measured: int = 0


@dataclass(frozen=True, slots=True)
class AutoView:
    """What ``auto`` would do with a request.

    Attributes:
        choice: What it would choose; None if it would refuse.
        refusal: Why it would; empty if it would not.
        variants: All of the model's, in the order of the configuration.
    """

    policy: str
    choice: AutoChoice | None
    refusal: str
    variants: tuple[Considered, ...]


class VariantChooser(Protocol):
    """Chooses the variant of a request that leaves the choice to the service."""

    async def choose(self, model: str, limits: Limits) -> AutoChoice:
        """Choose a variant of a model that the configuration names.

        Raises:
            NotReady: No variant is ready, or none may be chosen; the message says what each offers.
        """

    async def explain(self, model: str, limits: Limits) -> AutoView:
        """Say what ``choose`` would do now, and why, for every variant; nothing comes of it."""
