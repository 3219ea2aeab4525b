"""A load test as data. Unknown keys are refused, and every error names its key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from loadtests.arrivals import MAX_REQUESTS, Arrivals, Closed, expected_requests
from loadtests.inputs import Inputs
from loadtests.section import Pause, Positive, Seconds, Section
from serving.errors import ConfigError
from serving.settings import explain, read_yaml

Operation = Literal["embeddings", "classify", "completions", "chat"]
GENERATING: tuple[Operation, ...] = ("completions", "chat")

SHIPPED = Path(__file__).parent / "plans"

Name = Annotated[str, StringConstraints(min_length=1)]


class Target(Section):
    """The server.

    Attributes:
        url: Its address without ``/v1``.
        model_template: How a request names a variant in its field ``model``.
    """

    url: Annotated[str, StringConstraints(pattern="^https?://.*[^/]$")] = "http://127.0.0.1:8000"
    model_template: str = "{model}:{variant}"

    @model_validator(mode="after")
    def _check(self) -> Target:
        try:
            self.model_template.format(model="", variant="")
        except (LookupError, ValueError):
            raise ValueError(
                "model_template: only {model} and {variant} may stand in braces"
            ) from None
        return self


class LatencySlo(Section):
    """Limits that each single request has to keep, in ms, from the planned time.

    Attributes:
        latency_ms: To the end of the answer.
        ttft_ms: To the first token; streamed generation only.
        tpot_ms: Per output token after the first; streamed generation only.
    """

    latency_ms: Positive | None = None
    ttft_ms: Positive | None = None
    tpot_ms: Positive | None = None

    @property
    def limits(self) -> dict[str, float]:
        """Those that are given, by name."""
        return {name: limit for name, limit in self if limit is not None}


class Stop(Section):
    """What ends a turn early.

    Attributes:
        error_share: More than this share of the last 100 requests failed; null never stops.
        saturation_s: Over so many seconds both the concurrency and the latency have kept rising;
            null never stops.
    """

    error_share: Annotated[float, Field(gt=0, le=1)] | None = 0.5
    saturation_s: Annotated[float, Field(ge=5, le=3_600)] | None = 10


class Scenario(Section):
    """One model and operation.

    Attributes:
        model: Public name.
        operation: Which route.
        name: Of the scenario in reports; the model's name if not given.
        variants: Those that take turns; all that the server lists for the model if not given.
        reference: With which the others' answers are compared; by default the server's, and without
            one that took part there is nothing to compare with; the first of a server that has no
            reference.
        inputs: What is sent.
        arrivals: When.
        body: Further fields of each request, such as ``max_tokens``.
        slo: Limits.
    """

    model: Name
    operation: Operation
    name: str = ""
    variants: tuple[Name, ...] | None = Field(default=None, min_length=1)
    reference: str | None = None
    inputs: Inputs
    arrivals: Arrivals
    body: dict[str, Any] = Field(default_factory=dict)
    slo: LatencySlo = LatencySlo()

    @model_validator(mode="before")
    @classmethod
    def _name_after_model(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name"):
            return {**data, "name": data.get("model", "")}
        return data

    @model_validator(mode="after")
    def _check(self) -> Scenario:
        if self.variants and len(set(self.variants)) < len(self.variants):
            raise ValueError("variants: one is named twice")
        if self.reference is not None and self.variants and self.reference not in self.variants:
            raise ValueError(
                f"reference: {self.reference!r} is not among the variants "
                f"{', '.join(self.variants)}"
            )
        for metric in sorted({"ttft_ms", "tpot_ms"} & self.slo.limits.keys()):
            if self.operation not in GENERATING:
                raise ValueError(f"slo.{metric}: {self.operation} has no tokens to time")
            if not self.is_streamed:
                raise ValueError(
                    f"slo.{metric}: tokens are timed only where they are streamed; leave out "
                    "body.stream, or give latency_ms instead"
                )
        if reserved := {"model", "input", "prompt", "messages"} & self.body.keys():
            raise ValueError(f"body.{min(reserved)}: is filled in by the load test")
        return self

    @property
    def is_streamed(self) -> bool:
        """Whether answers come as events."""
        return self.operation in GENERATING and bool(self.body.get("stream", True))


class LoadPlan(Section):
    """A whole load test.

    Attributes:
        target: The server.
        scenarios: In every round each has its turns, one per variant.
        rounds: Confidence intervals are over rounds.
        duration_s: Measured time of one turn.
        warmup_s: Before it, at the same rate; not measured.
        grace_s: For how long answers are awaited after a turn; then they are cut off.
        timeout_s: After which a single request counts as failed.
        seed: Of arrivals and inputs.
        max_in_flight: Requests beyond it are not sent, and count as errors.
        max_lag_share: A run is invalid if the p99 of the generator's own lag is a greater share of
            the measured p99 latency, or of the p99 time to first token where ``slo.ttft_ms`` is
            given.
        attainment: Share of requests that have to meet the SLO in the search for the peak.
        stop: What ends a turn early.
    """

    target: Target = Target()
    scenarios: tuple[Scenario, ...] = Field(min_length=1)
    rounds: int = Field(default=3, ge=1, le=1_000)
    duration_s: Seconds = 20
    warmup_s: Pause = 3
    grace_s: Pause = 10
    timeout_s: Seconds = 60
    seed: int = Field(default=0, ge=0)
    max_in_flight: int = Field(default=2_000, ge=1, le=60_000)
    max_lag_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    attainment: Annotated[float, Field(gt=0, le=1)] = 0.99
    stop: Stop = Stop()

    @model_validator(mode="after")
    def _check(self) -> LoadPlan:
        names = [scenario.name for scenario in self.scenarios]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(f"scenarios[{index}].name: {name!r} is taken; give another")
        for index, scenario in enumerate(self.scenarios):
            count = expected_requests(scenario.arrivals, self.warmup_s, self.duration_s)
            if count > MAX_REQUESTS:
                raise ValueError(
                    f"scenarios[{index}].arrivals: some {count:,.0f} requests in one turn; at most "
                    f"{MAX_REQUESTS:,}: lower the rate, or duration_s and warmup_s"
                )
        return self

    @property
    def most_connections(self) -> tuple[str, int]:
        """The key that allows most connections at once, and how many."""
        users = [
            (f"scenarios[{index}].arrivals.users", scenario.arrivals.users)
            for index, scenario in enumerate(self.scenarios)
            if isinstance(scenario.arrivals, Closed)
        ]
        return max([("max_in_flight", self.max_in_flight), *users], key=lambda pair: pair[1])


def find_plan(name: str) -> Path:
    """A plan's file, or the shipped plan of that name.

    Raises:
        ConfigError: Neither exists; names the shipped ones.
    """
    path, shipped = Path(name), SHIPPED / f"{name}.yaml"
    if path.is_file():
        return path
    if shipped.is_file():
        return shipped
    known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
    raise ConfigError(f"{name}: no such file, and no plan of that name; shipped: {known}")


def load_plan(path: Path, url: str | None = None) -> LoadPlan:
    """Read a plan; ``url`` takes the place of its target's.

    Raises:
        ConfigError: The file cannot be read or holds something wrong; every problem is named by
            the path of its key.
    """
    document = read_yaml(path, "target and scenarios")
    if url is not None:
        target = document.get("target") or {}
        document["target"] = {**target, "url": url.rstrip("/")}
    try:
        return LoadPlan.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error)}") from None
