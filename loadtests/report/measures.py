"""The rows of the tables: what is shown of a variant, under which name and in which unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.results import Distribution, IntervalEstimate, VariantResult

Found = IntervalEstimate | float | None


@dataclass(frozen=True, slots=True)
class Measure:
    """A row.

    Attributes:
        name: With its unit.
        of: Takes it from a variant's result.
        scale: From the result's unit to the shown one.
        decimals: Shown behind the point.
        has_ratio: Whether a ratio to the reference says anything.
    """

    name: str
    of: Callable[[VariantResult], Found]
    scale: float = 1
    decimals: int = 1
    has_ratio: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """A table's title and rows."""

    title: str
    measures: Sequence[Measure]


TO_MIB = 1 / 1024**2
FIGURES = {"mean": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9"}


def figure_of(distribution: Distribution | None, name: str) -> IntervalEstimate | None:
    """The mean or a percentile, by its field's name."""
    found: IntervalEstimate | None = None if distribution is None else getattr(distribution, name)
    return found


def value_of(found: Found) -> float:
    """The figure without its interval; 0 for nothing."""
    if isinstance(found, IntervalEstimate):
        return found.value
    return 0.0 if found is None else found


def _times(title: str, field: str, figures: Sequence[str]) -> list[Measure]:
    def of(name: str) -> Callable[[VariantResult], Found]:
        return lambda variant: figure_of(getattr(variant, field), name)

    return [Measure(f"{title}{FIGURES[name]}, ms", of(name), 1e3) for name in figures]


def _server(name: str, field: str, scale: float, decimals: int = 1) -> Measure:
    return Measure(name, lambda variant: getattr(variant.server, field), scale, decimals)


def _agreement(variant: VariantResult) -> Found:
    return variant.agreement.estimate if variant.agreement else None


def _common_prefix(variant: VariantResult) -> Found:
    return variant.agreement.common_prefix if variant.agreement else None


GROUPS: tuple[Group, ...] = (
    Group(
        "Rate and errors",
        [
            Measure("offered, requests/s", lambda v: v.offered_rate, has_ratio=False),
            Measure("achieved, requests/s", lambda v: v.achieved_rate),
            Measure("goodput, requests/s", lambda v: v.goodput),
            Measure("SLO met, %", lambda v: v.slo_attainment, 100, 2, has_ratio=False),
            Measure("output tokens/s", lambda v: v.output_tokens_per_s),
        ],
    ),
    Group(
        "Latency",
        [
            *_times("", "latency", tuple(FIGURES)),
            *_times("from the send: ", "latency_from_send", ("p50", "p99")),
        ],
    ),
    Group(
        "Generation",
        [
            *_times("TTFT ", "ttft", tuple(FIGURES)),
            *_times("TPOT ", "tpot", ("mean", "p50", "p95", "p99")),
        ],
    ),
    Group(
        "In the server, means",
        [
            _server("queue, ms", "queue", 1e3, 2),
            _server("tokenize, ms", "tokenize", 1e3, 2),
            _server("core wait, ms", "core_wait", 1e3, 2),
            _server("forward, ms", "forward", 1e3, 2),
            _server("prefill, ms", "prefill", 1e3, 2),
            _server("decode, ms", "decode", 1e3, 2),
            _server("batch, sequences", "batch_size", 1, 2),
            _server("batch, tokens", "batch_tokens", 1),
            _server("replica's CPU, ms per request", "replica_cpu", 1e3),
            _server("service's CPU, ms per request", "service_cpu", 1e3),
        ],
    ),
    Group(
        "Memory",
        [
            _server("weights, MiB", "weights_bytes", TO_MIB),
            _server("resident, MiB", "resident_bytes", TO_MIB),
            _server("peak, MiB", "peak_bytes", TO_MIB),
            _server("KV cache, MiB", "kv_cache_bytes", TO_MIB),
            _server("on disk, MiB", "disk_bytes", TO_MIB),
        ],
    ),
    Group(
        "Quality",
        [
            Measure("agreement", _agreement, 1, 4, has_ratio=False),
            Measure("common prefix", _common_prefix, 1, 4, has_ratio=False),
            Measure(
                "pairs compared",
                lambda v: v.agreement.pairs if v.agreement else None,
                decimals=0,
                has_ratio=False,
            ),
        ],
    ),
    Group(
        "The generator itself",
        [
            Measure("lag p50, ms", lambda v: figure_of(v.lag, "p50"), 1e3, 3, has_ratio=False),
            Measure("lag p99, ms", lambda v: figure_of(v.lag, "p99"), 1e3, 3, has_ratio=False),
            Measure(
                "lag p99 / latency or TTFT p99, %", lambda v: v.lag_share, 100, 2, has_ratio=False
            ),
            Measure("CPU, ms per request", lambda v: v.generator_cpu, 1e3, 2, has_ratio=False),
        ],
    ),
)
