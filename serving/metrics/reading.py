"""Reads Prometheus text back: what was counted of each variant, and what that says of a span."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from serving.metrics import series
from serving.metrics.series import PREFIX, Series

Name = tuple[str, str]
"""Model and variant."""

_LABEL = re.compile(r'(\w+)="([^"]*)"')

REFUSED = ("429", "5")
"""How the statuses of failed answers begin; what else is wrong is the client's."""


class _Key(NamedTuple):
    """One sample, whatever else its labels say."""

    name: Name
    replica: str
    sample: str


@dataclass(frozen=True, slots=True)
class MetricsReading:
    """What a set of pages said at a moment.

    Attributes:
        at: The moment, in seconds on any clock.
        counts: Of every replica that was there, each since it started.
        gauges: Summed over the replicas of a variant.
    """

    at: float
    counts: Mapping[_Key, float]
    gauges: Mapping[Name, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class SpanFigures:
    """What happened to one variant between two readings.

    Attributes:
        requests_per_s: Requests answered, refused ones included.
        failed_per_s: Those of status 429 and from 500 on.
        tokens_per_s: Tokens generated; of an encoder, tokens read.
        p50_s: Within how many seconds half of the answers came; None without one. Exact to within
            the histogram's buckets, like ``p95_s``.
        core_wait_s: Mean wait of a request for a core; None without one.
        answers_per_busy_s: Requests (of a generator: sequences) that replicas have answered for
            each second in which one of them had any; None without one.
        within: How many of the answers came within what time: bounds in seconds, growing, and the
            share within each, from the last with none to the first with all.
    """

    requests_per_s: float
    failed_per_s: float
    tokens_per_s: float
    p50_s: float | None
    p95_s: float | None
    core_wait_s: float | None
    answers_per_busy_s: float | None
    within: tuple[tuple[float, float], ...]


_DURATION = PREFIX + series.REQUEST_DURATION.name
_BUCKET = f"{_DURATION}_bucket"
_REQUESTS = f"{PREFIX}{series.REQUESTS.name}_total"
_CORE_WAIT = PREFIX + series.CORE_WAIT.name
_OUTPUT = f"{PREFIX}{series.OUTPUT_TOKENS.name}_total"
_INPUT = f"{PREFIX}{series.INPUT_TOKENS.name}_total"
_BUSY = f"{PREFIX}{series.BUSY.name}_total"
_COUNTED = (
    *(_BUCKET, _REQUESTS, f"{_CORE_WAIT}_sum", f"{_CORE_WAIT}_count"),
    *(_OUTPUT, _INPUT, _BUSY),
)

GAUGES: Mapping[str, Series] = {
    "weights_bytes": series.WEIGHTS_BYTES,
    "resident_bytes": series.RESIDENT_BYTES,
    "kv_cache_bytes": series.KV_CACHE_BYTES,
    "in_flight": series.IN_FLIGHT_REQUESTS,
    "queued": series.QUEUED_REQUESTS,
}
_GAUGE_NAMES = {PREFIX + gauge.name: name for name, gauge in GAUGES.items()}
_WANTED = frozenset((*_COUNTED, *_GAUGE_NAMES))


def read_pages(pages: Iterable[str], at: float) -> MetricsReading:
    """Read the pages of replicas and gateways, as ``exposition`` writes them."""
    counts: dict[_Key, float] = defaultdict(float)
    gauges: dict[Name, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for sample, labels, value in _samples(pages):
        name = labels["model"], labels["variant"]
        if sample in _GAUGE_NAMES:
            gauges[name][_GAUGE_NAMES[sample]] += value
        else:
            which = labels.get("le") or labels.get("status") or ""
            counts[_Key(name, labels["replica"], sample + which)] += value
    return MetricsReading(at, counts, {name: dict(of_name) for name, of_name in gauges.items()})


def figures_between(before: MetricsReading, after: MetricsReading) -> dict[Name, SpanFigures]:
    """What happened between two readings, by variant.

    A replica that was not there before began from 0; what one that is gone did since the reading
    before is not known.
    """
    grown: dict[Name, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for key, value in after.counts.items():
        grown[key.name][key.sample] += value - before.counts.get(key, 0.0)
    span_s = after.at - before.at
    return {name: _figures(counts, span_s) for name, counts in grown.items()}


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Within what bound a share of the values lies, straight between the bounds of a bucket.

    What lies beyond the last bound counts as that bound, as in Prometheus' ``histogram_quantile``.

    Args:
        buckets: Upper bound to how many values are not above it; the last bound is infinite.
        share: Between 0 and 1.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank = share * buckets[bounds[-1]]
    low, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank and buckets[bound] > below:
            if bound == inf:
                return low
            return low + (bound - low) * (rank - below) / (buckets[bound] - below)
        low, below = bound, buckets[bound]
    return None


def shares_within(buckets: Mapping[float, float]) -> tuple[tuple[float, float], ...]:
    """Which share of the values lies within which bound; see ``SpanFigures.within``.

    Args:
        buckets: As in ``quantile``.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return ()
    shares = [(bound, buckets[bound] / buckets[bounds[-1]]) for bound in bounds[:-1]]
    num_none = sum(share <= 0 for _, share in shares)
    num_all = sum(share >= 1 for _, share in shares)
    return tuple(shares[max(num_none - 1, 0) : len(shares) - max(num_all - 1, 0)])


def _figures(counts: Mapping[str, float], span_s: float) -> SpanFigures:
    buckets = {
        float(sample.removeprefix(_BUCKET)): value
        for sample, value in counts.items()
        if sample.startswith(_BUCKET)
    }
    by_status = {
        sample.removeprefix(_REQUESTS): value
        for sample, value in counts.items()
        if sample.startswith(_REQUESTS)
    }
    failed = sum(value for status, value in by_status.items() if status.startswith(REFUSED))
    answered, busy_s = counts.get(f"{_CORE_WAIT}_count", 0.0), counts.get(_BUSY, 0.0)
    tokens = counts.get(_OUTPUT) if _OUTPUT in counts else counts.get(_INPUT)
    return SpanFigures(
        requests_per_s=sum(by_status.values()) / span_s,
        failed_per_s=failed / span_s,
        tokens_per_s=(tokens or 0.0) / span_s,
        p50_s=quantile(buckets, 0.5),
        p95_s=quantile(buckets, 0.95),
        core_wait_s=counts[f"{_CORE_WAIT}_sum"] / answered if answered else None,
        answers_per_busy_s=answered / busy_s if answered and busy_s else None,
        within=shares_within(buckets),
    )


def _samples(pages: Iterable[str]) -> Iterator[tuple[str, dict[str, str], float]]:
    for page in pages:
        for line in page.splitlines():
            sample, brace, rest = line.partition("{")
            if brace and sample in _WANTED:
                labels, _, value = rest.rpartition("} ")
                yield sample, dict(_LABEL.findall(labels)), float(value)
