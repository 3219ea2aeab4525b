"""What the other gateways of the service have measured, as they told it last."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, takewhile

Name = tuple[str, str]
"""Model and variant."""

WINDOW_S = 120.0
"""Calls that ended longer ago are forgotten, so that a variant that was slow is tried again."""

MAX_SAMPLES = 512
"""Most calls of one variant that are remembered, of each gateway."""

PRESENT_S = 5.0
"""What a gateway has in flight, and how loaded it is, is the present so long after it said so."""


@dataclass(slots=True)
class Sample:
    """A call that has ended.

    Attributes:
        number: How many its gateway had noted before it.
        started: When it began, on the clock of this process; in a report, seconds before it.
        ended: When it ended, likewise.
        service_s: Seconds that it took, without waiting.
        queue_s: Seconds that it waited.
        ahead: Requests that it found in flight to its variant.
        load: Calls a second, of all variants, when it ended.
        is_alone: Whether no other call of any variant was under way meanwhile; of one that failed
            it is supposed.
        has_failed: Whether it did.
    """

    number: int
    started: float
    ended: float
    service_s: float
    queue_s: float
    ahead: int
    load: float
    is_alone: bool
    has_failed: bool = False

    def moved(self, by_s: float) -> Sample:
        """The same on a clock that shows ``by_s`` more."""
        return replace(self, started=self.started + by_s, ended=self.ended + by_s)


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """What one gateway tells another.

    Attributes:
        gateway: Which; no other ever has its name.
        count: Samples that it has noted so far; asked since then, it tells what came later.
        load: Its calls a second, of all variants.
        in_flight: Its calls that are under way, by variant.
        samples: Those that are new, by variant, in the order in which they ended.
    """

    gateway: str
    count: int
    load: float
    in_flight: Mapping[Name, int]
    samples: Mapping[Name, Sequence[Sample]]


@dataclass(slots=True)
class _Gateway:
    told_at: float
    report: GatewayReport
    samples: dict[Name, deque[Sample]] = field(default_factory=dict)


class Elsewhere:
    """The reports of the other gateways, joined."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._gateways: dict[str, _Gateway] = {}

    @property
    def told(self) -> dict[str, int]:
        """How much each gateway has told: its ``GatewayReport.count``."""
        return {name: gateway.report.count for name, gateway in self._gateways.items()}

    def learn(self, report: GatewayReport) -> list[Sample]:
        """Take a report in, and return what is new in it, on the clock of this process."""
        now, new = self._clock(), []
        gateway = self._gateways.setdefault(report.gateway, _Gateway(now, report))
        gateway.told_at, gateway.report = now, report
        for name, reported in report.samples.items():
            samples = [sample.moved(by_s=now) for sample in reported]
            gateway.samples.setdefault(name, deque(maxlen=MAX_SAMPLES)).extend(samples)
            new += samples
        return new

    def forget_the_gone(self) -> None:
        """Forget gateways of which nothing is left that counts."""
        now = self._clock()
        self._gateways = {
            name: gateway
            for name, gateway in self._gateways.items()
            if now - gateway.told_at <= WINDOW_S
        }

    def in_flight(self, name: Name) -> int:
        """Calls to a variant that are under way."""
        return sum(report.in_flight.get(name, 0) for report in self._present())

    def load(self) -> float:
        """Calls a second, of all variants."""
        return sum(report.load for report in self._present())

    def samples(self, name: Name) -> Iterator[Sample]:
        """Calls to a variant that ended within the window."""
        now = self._clock()
        for gateway in self._gateways.values():
            for sample in gateway.samples.get(name, ()):
                if now - sample.ended <= WINDOW_S:
                    yield sample

    def samples_since(self, moment: float) -> Iterator[Sample]:
        """Calls to any variant that ended after a moment."""
        deques = (one for gateway in self._gateways.values() for one in gateway.samples.values())
        return ended_since(moment, deques)

    def _present(self) -> Iterator[GatewayReport]:
        now = self._clock()
        for gateway in self._gateways.values():
            if now - gateway.told_at <= PRESENT_S:
                yield gateway.report


def ended_since(moment: float, deques: Iterable[deque[Sample]]) -> Iterator[Sample]:
    """Samples that ended after a moment, out of deques in the order in which they ended."""
    return chain.from_iterable(
        takewhile(lambda sample: sample.ended >= moment, reversed(one)) for one in deques
    )


def note_overlaps(samples: Iterable[Sample]) -> None:
    """Note of calls that one was under way while another was: neither was alone."""
    latest: Sample | None = None
    for sample in sorted(samples, key=lambda one: one.started):
        if latest is not None and sample.started < latest.ended:
            latest.is_alone = latest.has_failed
            sample.is_alone = sample.has_failed
        if latest is None or sample.ended > latest.ended:
            latest = sample
