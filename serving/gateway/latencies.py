"""How long each variant's answers take, as the gateways see it, and would take now."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import exp

from serving.errors import DeadlineExceeded, InputFails, InternalError
from serving.gateway.elsewhere import (
    MAX_SAMPLES,
    WINDOW_S,
    Elsewhere,
    GatewayReport,
    Sample,
    ended_since,
    note_overlaps,
)

LOAD_S = 2.0
"""The load is the rate at which calls begin, over about so many seconds."""

HIGHER_LOAD = 1.25
"""What calls waited at a load above the present one by this factor says nothing of the present."""

SUMMARY_MAX_AGE_S = 0.1
"""They are added up at most this often; only the requests in flight are always the present ones."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a variant offers at the present load.

    Attributes:
        p95_s: 95 of 100 requests that came now would be answered within these seconds.
        service_s: Mean seconds of a request that had the machine for itself, as far as the
            gateways can tell; None if none had. Comparable between variants of different load.
        count: Requests that both are from.
    """

    p95_s: float
    service_s: float | None
    count: int


@dataclass(slots=True)
class Call:
    """A call that is under way.

    Attributes:
        started: When it began, on the clock of ``Latencies``.
        ahead: Requests that were in flight to the variant then.
        others: Calls of all variants that had begun then; None if one of them was still open.
        is_open: Whether the variant still works on it.
    """

    name: tuple[str, str]
    started: float
    ahead: int
    others: int | None
    is_open: bool = True


@dataclass(frozen=True, slots=True)
class _Summary:
    at: float
    p95_s: float
    p95_service_s: float
    service_s: float | None
    wait_per_request_s: float
    count: int


@dataclass(slots=True)
class _Variant:
    in_flight: int = 0
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))
    summary: _Summary | None = None


class Latencies:
    """A record of the latest calls of every variant.

    A request that came now would be answered, 95 times of 100, within the larger of

    - the 95th percentile of what the calls of the window took,
    - the 95th percentile of what they took apart from waiting, and for each request that is in
      flight now what one has cost those that came after it: their waits divided by the requests
      that they found, or, before any found one, the mean time of a call.

    The second answers a rising load at once. The first remembers that the load was too much: a
    variant that was chosen less for that reason would look fast again at once, and be chosen
    again. It is tried again when the window has passed, or when the load is lower: waits behind
    other calls do not count if the load was clearly higher then. (Waits of calls that found no
    other are the work of the direct path.)

    Where requests are batched, and where several variants share the machine, what is foreseen
    holds for a load like that of the window. Requests of all sizes are taken together.

    Calls of other gateways count like this one's, as far as these have told of them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._elsewhere = Elsewhere(clock)
        self._variants: dict[tuple[str, str], _Variant] = {}
        self._begun = 0
        self._in_flight = 0
        self._num_samples = 0
        self._load = 0.0
        self._load_at = clock()

    @contextmanager
    def measuring(self, model: str, variant: str, timeout_s: float) -> Iterator[Call]:
        """Measure the call inside.

        It counts if it is answered, or if its deadline passes. One that fails counts as if it had
        used up its ``timeout_s``: errors come fast, and must not make a variant attractive.
        """
        call = self.begin(model, variant)
        try:
            yield call
        except DeadlineExceeded:
            self.answered(call, queue_s=0)
            raise
        except (InternalError, InputFails):
            # As if alone, whoever was there: its cost has to be known, or that of the probes
            # would count.
            self._record(call, service_s=timeout_s, queue_s=0, is_alone=True, has_failed=True)
            raise
        finally:
            self.end(call)

    def begin(self, model: str, variant: str) -> Call:
        """Note that a call begins."""
        name, now = (model, variant), self._clock()
        record = self._variants.setdefault(name, _Variant())
        others = None if self._in_flight else self._begun
        call = Call(name, now, self.in_flight(model, variant), others)
        self._load, self._load_at = self._own_load(now) + 1 / LOAD_S, now
        record.in_flight += 1
        self._in_flight += 1
        self._begun += 1
        return call

    def answered(self, call: Call, queue_s: float, total_s: float | None = None) -> None:
        """Note that the whole answer came, and end the call.

        Args:
            call: The call.
            queue_s: Seconds that it waited for its first forward pass.
            total_s: Seconds that it took, if they are not those until now.
        """
        service_s = (self._clock() - call.started if total_s is None else total_s) - queue_s
        is_alone = call.others is not None and self._begun == call.others + 1
        self._record(call, max(service_s, 0.0), queue_s, is_alone=is_alone)

    def end(self, call: Call) -> None:
        """Note that the variant works on a call no more; without an answer it teaches nothing."""
        if call.is_open:
            call.is_open = False
            self._variants[call.name].in_flight -= 1
            self._in_flight -= 1

    def in_flight(self, model: str, variant: str) -> int:
        """Calls that the variant works on now."""
        record = self._variants.get((model, variant))
        own = record.in_flight if record else 0
        return own + self._elsewhere.in_flight((model, variant))

    def figures(self, model: str, variant: str) -> Figures | None:
        """What the variant offers now; None if no call has ended within the window."""
        summary = self._summary((model, variant))
        if summary is None:
            return None
        in_flight = self.in_flight(model, variant)
        behind_s = summary.p95_service_s + in_flight * summary.wait_per_request_s
        return Figures(max(summary.p95_s, behind_s), summary.service_s, summary.count)

    @property
    def told(self) -> dict[str, int]:
        """How much each other gateway has told; see ``report``."""
        return self._elsewhere.told

    def report(self, gateway: str, since: int) -> GatewayReport:
        """What this gateway has to tell another one.

        Args:
            gateway: This one's name.
            since: ``GatewayReport.count`` of what it told that one last; 0 for all.
        """
        now = self._clock()
        new = {name: self._new_samples(record, since) for name, record in self._variants.items()}
        return GatewayReport(
            gateway,
            self._num_samples,
            self._own_load(now),
            {name: one.in_flight for name, one in self._variants.items() if one.in_flight},
            {name: [one.moved(by_s=-now) for one in some] for name, some in new.items() if some},
        )

    def learn(self, reports: Sequence[GatewayReport]) -> None:
        """Take in what other gateways have told."""
        new = [sample for report in reports for sample in self._elsewhere.learn(report)]
        self._elsewhere.forget_the_gone()
        if new:
            earliest = min(sample.started for sample in new)
            own = ended_since(earliest, (record.samples for record in self._variants.values()))
            note_overlaps([*own, *self._elsewhere.samples_since(earliest)])

    def _new_samples(self, record: _Variant, since: int) -> list[Sample]:
        oldest = self._clock() - WINDOW_S
        return [one for one in record.samples if one.number >= since and one.ended >= oldest]

    def _record(
        self,
        call: Call,
        service_s: float,
        queue_s: float,
        *,
        is_alone: bool,
        has_failed: bool = False,
    ) -> None:
        self.end(call)
        now = self._clock()
        self._variants[call.name].samples.append(
            Sample(
                number=self._num_samples,
                started=call.started,
                ended=now,
                service_s=service_s,
                queue_s=queue_s,
                ahead=call.ahead,
                load=self._load_now(now),
                is_alone=is_alone,
                has_failed=has_failed,
            )
        )
        self._num_samples += 1

    def _summary(self, name: tuple[str, str]) -> _Summary | None:
        now, record = self._clock(), self._variants.setdefault(name, _Variant())
        if record.summary is None or now - record.summary.at > SUMMARY_MAX_AGE_S:
            while record.samples and now - record.samples[0].ended > WINDOW_S:
                record.samples.popleft()
            samples, load = [*record.samples, *self._elsewhere.samples(name)], self._load_now(now)
            record.summary = _summarise(now, samples, load) if samples else None
        return record.summary

    def _own_load(self, now: float) -> float:
        return self._load * exp((self._load_at - now) / LOAD_S)

    def _load_now(self, now: float) -> float:
        return self._own_load(now) + self._elsewhere.load()


def _summarise(now: float, samples: Sequence[Sample], load: float) -> _Summary:
    service = [sample.service_s for sample in samples]
    total = [
        sample.service_s + sample.queue_s
        if not sample.ahead or sample.load <= HIGHER_LOAD * load
        else sample.service_s
        for sample in samples
    ]
    alone = [sample.service_s for sample in samples if sample.is_alone]
    wait_s = sum(sample.queue_s for sample in samples if sample.ahead)
    found = sum(sample.ahead for sample in samples)
    return _Summary(
        at=now,
        p95_s=_p95(total),
        p95_service_s=_p95(service),
        service_s=sum(alone) / len(alone) if alone else None,
        wait_per_request_s=wait_s / found if found else sum(service) / len(service),
        count=len(samples),
    )


def _p95(values: Sequence[float]) -> float:
    """The percentile, rounded down: a single slow call among few is none."""
    return sorted(values)[int(0.95 * (len(values) - 1))]
