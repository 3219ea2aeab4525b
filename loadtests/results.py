"""What a load test found: the types of ``results.json``. Times are seconds, sizes are bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from loadtests.samples import RequestSamples
from serving.errors import ConfigError
from serving.settings import explain

SCHEMA_VERSION: Literal[2] = 2
FILE_NAME = "results.json"


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IntervalEstimate(_Result):
    """A figure and its 95 % confidence interval.

    The figure is the mean of the rounds' figures, the interval Student's t over the rounds unless
    the field says otherwise; see ``mean_of``. With one round, or where a single round has too few
    samples, there is no interval.

    Attributes:
        by_round: The rounds' figures in order, None where a round has none; empty of a figure that
            is not made of rounds' figures.
    """

    value: float
    low: float | None = None
    high: float | None = None
    by_round: tuple[float | None, ...] = ()


class Distribution(_Result):
    """Of all rounds: percentiles of requests that count, the others of successes.

    A percentile counts requests that failed as infinitely late, and those that were cut off as
    later than any other. It is None if it falls on one of these, or if it has less than one request
    beyond it: p99.9 takes 1,000.

    Attributes:
        count: Values of successes, and of first tokens of streams that were cut off later.
        mean: Of the same.
    """

    count: int
    mean: IntervalEstimate
    p50: IntervalEstimate | None
    p90: IntervalEstimate | None
    p95: IntervalEstimate | None
    p99: IntervalEstimate | None
    p999: IntervalEstimate | None


class ServerSide(_Result):
    """What the server says of itself; None is what it does not say, never 0.

    Durations are means per request (per sequence of a generator) over a round, from the difference
    of the histograms' sums and counts; batches are means per forward pass. Bytes are of all
    replicas together after the last round.

    Attributes:
        replica_cpu: CPU seconds of the variant's replicas per answered request, if they run here.
        service_cpu: CPU seconds of all of Ray's and Serve's processes per answered request, those
            of idle variants included, if they run here.
        resident_bytes_by_round: After each round; does it grow?
    """

    queue: IntervalEstimate | None = None
    core_wait: IntervalEstimate | None = None
    tokenize: IntervalEstimate | None = None
    forward: IntervalEstimate | None = None
    prefill: IntervalEstimate | None = None
    decode: IntervalEstimate | None = None
    batch_size: IntervalEstimate | None = None
    batch_tokens: IntervalEstimate | None = None
    replica_cpu: IntervalEstimate | None = None
    service_cpu: IntervalEstimate | None = None
    weights_bytes: int | None = None
    resident_bytes: int | None = None
    resident_bytes_by_round: tuple[int, ...] | None = None
    peak_bytes: int | None = None
    kv_cache_bytes: int | None = None
    disk_bytes: int | None = None
    device: str | None = None
    isa: str | None = None
    runtime: str | None = None
    recipe: str | None = None


class Agreement(_Result):
    """How a variant's answers in this very test agree with the reference's to the same inputs.

    Attributes:
        measure: ``cosine`` (mean over pairs), ``same_label`` or ``same_text`` (share of pairs).
        estimate: The interval is over the pairs: bootstrap for the mean, Wilson's for shares.
        common_prefix: Of generated texts: mean of the characters in common before the first
            difference, as a share of the reference's.
        pairs: Pairs compared; those of a round that both answered, at most 2,000.
    """

    measure: Literal["cosine", "same_label", "same_text"]
    estimate: IntervalEstimate
    common_prefix: IntervalEstimate | None = None
    pairs: int


class VariantResult(_Result):
    """One variant of a scenario.

    Attributes:
        offered_rate: Planned requests per second.
        achieved_rate: Answers with success per second, until the end of the turn or of the last
            such answer, whichever is later.
        planned: Measured requests of all rounds; each is ok, cut off or an error.
        errors: Requests by kind of error; see ``RequestSamples.outcomes``.
        latency: From the planned time to the end of the answer.
        latency_from_send: From the actual send.
        ttft, ttft_from_send, tpot: See ``RequestSamples``; None unless answers were streamed.
        output_tokens_per_s: Output tokens of successes per second, as for ``achieved_rate``.
        goodput: Requests that met every SLO per second of the measured time; None without SLO.
        undecided: Requests that were cut off before they had waited past a limit; None in results
            that did not note when requests were cut off.
        slo_attainment: Share of requests that met every SLO; errors are misses, undecided requests
            do not count. The interval is the wider one over rounds or requests; see ``attainment``.
        slo_attainment_by_metric: The same for each SLO alone, by its name in the plan.
        lag: How late the generator sent.
        lag_share: p99 of the lag / p99 of the latency, or of the TTFT where that has a limit; all
            rounds together.
        generator_cpu: CPU seconds of the generator per sent request.
        agreement: None for the reference itself, and where no answers could be paired.
        stopped: Why rounds were stopped early, if they were.
        problems: Why these figures must not be trusted; empty for valid ones.
    """

    variant: str
    is_reference: bool
    offered_rate: IntervalEstimate
    achieved_rate: IntervalEstimate
    planned: int
    ok: int
    cut_off: int
    errors: dict[str, int]
    latency: Distribution | None
    latency_from_send: Distribution | None
    ttft: Distribution | None
    ttft_from_send: Distribution | None
    tpot: Distribution | None
    output_tokens_per_s: IntervalEstimate | None
    goodput: IntervalEstimate | None
    slo_attainment: IntervalEstimate | None
    slo_attainment_by_metric: dict[str, IntervalEstimate]
    lag: Distribution | None
    lag_share: float | None
    generator_cpu: IntervalEstimate | None
    server: ServerSide
    agreement: Agreement | None
    stopped: tuple[str, ...]
    problems: tuple[str, ...]
    samples: RequestSamples
    undecided: int | None = None

    @property
    def num_undecided(self) -> int:
        """``undecided``, or as many as may be."""
        return self.cut_off if self.undecided is None else self.undecided


class Probe(_Result):
    """One rate tried in the search for the peak.

    Attributes:
        rate: Offered, requests per second.
        counted: Requests that met the SLO or surely did not.
        attainment: Share of them that met the SLO.
        met: Whether that is at least the plan's attainment, and nothing stopped the turn.
        why_not: Empty if it was met.
        is_generators: Whether the miss is the generator's own, which says nothing of the server.
    """

    rate: float
    achieved_rate: float
    p50: float | None
    p99: float | None
    counted: int
    attainment: float
    met: bool
    why_not: str
    is_generators: bool = False


class Peak(_Result):
    """The highest rate that meets the SLO: between two rates, which are no confidence interval.

    Attributes:
        rate: The highest rate that surely met it; None if none did.
        missed_at: The lowest rate that surely missed it; None if none did, or if it was the
            generator that missed.
        probes: Every turn, in the order of time.
        note: Why the two may lie far from the server's peak; empty if they do not.
    """

    variant: str
    rate: float | None
    missed_at: float | None
    probes: tuple[Probe, ...]
    note: str = ""


class ScenarioResult(_Result):
    """One model and operation, all variants that had a turn.

    Attributes:
        slo: Limits by metric, in ms, as in the plan.
        peaks: One per variant where ``--find-peak`` was given; fewer if it was interrupted.
    """

    name: str
    model: str
    operation: str
    reference: str
    slo: dict[str, float]
    variants: tuple[VariantResult, ...]
    peaks: tuple[Peak, ...] = ()


class Results(_Result):
    """A whole run.

    Attributes:
        plan: As it was read, after defaults and the command line.
        started_at: ISO 8601, UTC.
        conditions: What it was measured under, in words.
        problems: Why the run is not valid, each with its scenario and variant, or that it was
            interrupted.
        scenarios: In the order of the plan; the last ones are missing if none of their variants
            had a turn.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    plan: dict[str, Any]
    started_at: str
    wall_s: float
    conditions: dict[str, str]
    problems: tuple[str, ...]
    scenarios: tuple[ScenarioResult, ...]

    @property
    def is_valid(self) -> bool:
        """Whether every figure may be trusted."""
        return not self.problems


def write_results(results: Results, folder: Path) -> Path:
    """Write ``results.json`` into a folder, which is made if it is missing; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    document = results.model_dump(mode="json")
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    return path


def read_results(path: Path) -> Results:
    """Read a ``results.json``, or the one in a folder.

    Raises:
        ConfigError: It is missing, or was written in another form.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        return Results.model_validate(orjson.loads(file.read_bytes()))
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as results of a load test: {error}") from None
    except ValidationError as error:
        raise ConfigError(
            f"{file}: not results of a load test in form {SCHEMA_VERSION}: {explain(error)}"
        ) from None
