"""What is compared between a variant and the reference, and what is concluded from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.seams.generation import Trace
from serving.seams.inference import AnswerOptions, Input

QUALITY_APPLICATION = "quality"
"""Name of the Serve application of the process that compares."""

Origin = Literal["probes", "live", "labels"]
"""Where evidence comes from: fixed inputs, sampled live requests, labelled examples."""

Verdict = Literal["indistinguishable", "degraded", "failing", "not enough samples"]

DropReason = Literal[
    "over_limit", "queue_full", "unreachable", "reference_busy", "not_ready", "failed"
]
"""Why a sampled request was not compared."""


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """What a variant answered to one input of a live request.

    Attributes:
        input: What was asked.
        truncate: See ``InferenceRequest``; likewise ``options``.
        row: float32 (width,): an embedding, or class probabilities.
    """

    model: str
    variant: str
    input: Input
    truncate: bool
    options: AnswerOptions
    row: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GeneratedSample:
    """What a variant generated for one live request.

    Attributes:
        prompt: As it came; of a chat, its last message.
    """

    model: str
    variant: str
    trace: Trace
    prompt: str


Sample = EncodedSample | GeneratedSample


class SampleSink(Protocol):
    """Takes samples of live requests. Neither call waits, blocks or raises."""

    def wants(self) -> bool:
        """Whether the request that has just come shall be sampled."""

    def offer(self, sample: Sample) -> None:
        """Hand a sample over; it is dropped, and counted, where there is no room."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One answer of a variant beside the reference's.

    Attributes:
        agreement: 0 … 1; what it is of depends on the task, see ``OriginReport.measures``.
        measures: What else the task measures, by name; see there. One that begins with ``log_`` is
            reported without it, as the exponential of its mean.
    """

    agreement: float
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean or a share with its uncertainty.

    Attributes:
        value: The estimate.
        low: Lower end of its 95 % interval; likewise ``high``.
        count: Samples behind it.
    """

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class PreparedAgreement:
    """How far an artifact agrees with its model's fp32 on torch, as measured when it was prepared.

    Attributes:
        measure: What was measured: ``cosine`` or another measure of its task, or ``agreement``.
        value: Mean over the inputs; of a generator, over all places of the texts.
        inputs: How many inputs were held out for it.
        data: Where they are from: ``dataset``, ``probes`` or the name of a file.
        reference: What it was compared with, in words.
    """

    measure: str
    value: float
    inputs: int
    data: str
    reference: str

    def __str__(self) -> str:
        return (
            f"{self.measure} to {self.reference} {self.value:.4f} over {self.inputs} held-out "
            f"inputs of {self.data}"
        )


@dataclass(frozen=True, slots=True)
class OriginReport:
    """What one origin says of one variant.

    Attributes:
        origin: Where the inputs came from.
        count: Samples compared since the variant was deployed; the estimates are over the latest.
        measures: By name: ``agreement`` always (embeddings: overlap of the 10 nearest probes;
            classification: share of same labels; generation: share of same first choices), and
            what else the task has: ``cosine``, ``probability_change``, ``divergence`` (nats),
            ``perplexity_ratio``, ``first_gap`` (nats).
        smallest_difference: The smallest difference of shares that the samples could have shown.
    """

    origin: Origin
    count: int
    measures: Mapping[str, Estimate]
    smallest_difference: float


@dataclass(frozen=True, slots=True)
class LabelReport:
    """How one variant did on the labelled data.

    Attributes:
        dataset: Name of the file, without its ending.
        accuracy: Share of examples whose label was met; None where perplexity is measured.
        perplexity: None where accuracy is.
        difference: The variant's measure minus the reference's, over the same examples; of
            perplexity, the ratio minus 1.
        smallest_difference: The smallest one that the examples could have shown; None for the
            reference.
    """

    dataset: str
    accuracy: Estimate | None
    perplexity: Estimate | None
    difference: Estimate | None
    smallest_difference: float | None


@dataclass(frozen=True, slots=True)
class KeptSample:
    """One of the worst comparisons, kept only where ``quality.keep_samples`` asks for it."""

    origin: Origin
    input: Input
    agreement: float


@dataclass(frozen=True, slots=True)
class ProbeProgress:
    """How far a variant is with its probes.

    Attributes:
        state: ``done`` once it has answered all of them, and some again for their time;
            ``failed`` if it cannot.
        done: Probes answered; ``total`` how many there are.
        reason: How far they are or what they wait for, in words; empty once they are done.
    """

    state: Literal["waiting", "probing", "done", "failed"]
    done: int
    total: int
    reason: str


NO_PROBES = ProbeProgress("waiting", 0, 0, "not looked at yet")
"""Of a variant before anybody has looked at it."""


@dataclass(frozen=True, slots=True)
class VariantQuality:
    """Everything that is known of the quality of one variant.

    Attributes:
        is_reference: Whether the others are judged against it.
        verdict: The conclusion; of the reference always ``indistinguishable``.
        reason: Why, in words.
        in_auto: Whether the router may choose it.
        quality_low: Lower end of the interval of its agreement, the lowest of the origins that
            have enough samples; 1 for the reference; None while there are not enough.
        origins: Probes and live requests, as far as there are samples.
        labels: The latest evaluation; None before the first.
        worst: The comparisons with the least agreement, worst first.
        probe_p95_s: 95th percentile of the time that single probes took, in seconds; None before
            they were asked.
        num_timed: So many single probes that is of.
        artifact: Id of the artifact that all of this is of; empty while no replica has said it.
        probes: How far its probes are.
    """

    variant: str
    is_reference: bool
    verdict: Verdict
    reason: str
    in_auto: bool
    quality_low: float | None
    origins: tuple[OriginReport, ...]
    labels: LabelReport | None
    worst: tuple[KeptSample, ...]
    probe_p95_s: float | None
    artifact: str = ""
    probes: ProbeProgress = NO_PROBES
    num_timed: int = 0


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """A verdict that was not the one before, or of another artifact, and what it was based on.

    Attributes:
        at: When, in seconds since 1970.
        artifact: Id of the artifact that was judged.
        reference_artifact: Id of the one that it was judged against.
        verdict: See ``VariantQuality``; likewise ``reason``, ``in_auto``, ``origins`` and
            ``labels``, all as they were then.
    """

    at: float
    variant: str
    artifact: str
    reference_artifact: str
    verdict: Verdict
    reason: str
    in_auto: bool
    origins: tuple[OriginReport, ...]
    labels: LabelReport | None


@dataclass(frozen=True, slots=True)
class CourseStep:
    """What was compared of one variant in a step of time.

    Attributes:
        artifact: Id of the artifact that was judged; see ``VerdictChange``.
        at: Mean time of the samples, in seconds since 1970.
        agreement: Over the samples of this step alone.
    """

    variant: str
    origin: Origin
    artifact: str
    reference_artifact: str
    at: float
    agreement: Estimate


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """How far an evaluation on labelled data is.

    Attributes:
        state: ``idle`` before the first.
        done: Answers so far, of all variants; ``total`` how many there will be.
        reason: Why it failed, or which variants were left out and why, in words; else empty.
    """

    state: Literal["idle", "running", "done", "failed"]
    done: int
    total: int
    reason: str


@dataclass(frozen=True, slots=True)
class ModelQuality:
    """Everything that is known of the quality of a model's variants.

    Attributes:
        floor: Agreement below which a variant fails.
        tolerance: Share of disagreement that does not count as a loss.
        evaluation: Of the labelled data; None if the model has none.
        not_kept: Why the evidence does not outlive the process, in words; empty if it does.
    """

    model: str
    task: str
    reference: str
    floor: float
    tolerance: float
    evaluation: EvaluationProgress | None
    variants: tuple[VariantQuality, ...]
    not_kept: str = ""


class QualityBoard(Protocol):
    """Where routes and the router find what is known of quality."""

    async def report(self) -> tuple[ModelQuality, ...]:
        """Return everything that is known.

        Raises:
            NotReady: The process that compares does not answer.
        """

    async def history(self, since: float) -> Mapping[str, tuple[VerdictChange, ...]]:
        """Return the changes of verdicts since a time in seconds since 1970, by model.

        The oldest comes first.

        Raises:
            NotReady: The process that compares does not answer.
        """

    async def course(self, model: str, since: float, step_s: float) -> tuple[CourseStep, ...]:
        """Return how a model's agreements went since a time, by steps of ``step_s`` seconds.

        By variant and origin, the oldest first; a step in which nothing was compared is left out.

        Raises:
            NotReady: The process that compares does not answer.
        """

    async def inputs(self, model: str) -> tuple[Input, ...]:
        """Return the latest inputs of a model's live requests that were kept, the oldest first.

        Raises:
            InvalidField: None may be kept.
            NotReady: The process that compares does not answer.
        """

    async def evaluate(self, model: str) -> EvaluationProgress:
        """Start the evaluation of a model's variants on its labelled data, unless it runs.

        Raises:
            InvalidField: The model has no labelled data.
            NotReady: The process that compares does not answer.
        """
