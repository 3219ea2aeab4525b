"""Runs a model's labelled data through its variants, in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from serving.errors import InvalidField, NotReady, QuantserveError
from serving.monitor.assessment import Assessment
from serving.monitor.evidence import file_digest
from serving.quality.dataset import Example, Passage
from serving.quality.labels import LabelledScore, accuracy_report, perplexity_report
from serving.seams import EvaluationProgress

logger = logging.getLogger("ray.serve.quantserve")

AT_ONCE = 8
"""Examples of one background request: more would hold the replica longer than a client may wait."""

KNOWN_S = 60.0
"""How long it may take until it is known what is deployed of a variant that answers."""

LOOK_S = 0.5
"""How often it is looked whether it is."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What one deployment of a variant did; the scores are in the order of the examples."""

    deployed_at: float
    scores: list[LabelledScore]


async def evaluate(assessment: Assessment, dataset: Path) -> None:
    """Score every variant, the reference first, and note progress and results in ``assessment``.

    What an artifact has answered before is not asked again, so that an evaluation that was broken
    off goes on where it was. A variant that does not answer, or is deployed again meanwhile, is
    left out, and the progress says so. Never raises what the data or a variant can cause: the
    progress says that, too.
    """
    progress = EvaluationProgress("running", 0, 0, "")
    assessment.evaluation = progress
    task = assessment.task
    conclude = perplexity_report if task.kind == "generator" else accuracy_report
    reference: _Run | None = None
    left_out: list[str] = []
    try:
        examples = await asyncio.to_thread(task.read_labelled, dataset)
        data_set = await asyncio.to_thread(file_digest, dataset)
        assert data_set is not None  # or it could not have been read
        variants = assessment.reference_first
        progress = replace(progress, total=len(examples) * len(variants))
        for number, variant in enumerate(variants):
            progress = replace(progress, done=number * len(examples), reason="; ".join(left_out))
            try:
                run = await _score(assessment, variant, examples, data_set, progress)
                expected = reference.scores if reference else None
                # Resampling takes a while.
                labels = await asyncio.to_thread(conclude, dataset.stem, run.scores, expected)
                _require_same(assessment, variant, run)
            except InvalidField:
                raise
            except Exception as error:  # whatever a broken variant answers belongs to it alone
                if reference is None:
                    raise
                _require_same(assessment, assessment.reference, reference)
                left_out.append(f"{variant} is left out: {_in_words(error, assessment.model)}")
            else:
                reference = reference or run
                _require_same(assessment, assessment.reference, reference)
                await assessment.set_labels(variant, data_set, labels)
    except Exception as error:
        reason = _in_words(error, assessment.model)
        assessment.evaluation = replace(progress, state="failed", reason=reason)
    else:
        done = replace(progress, state="done", done=progress.total, reason="; ".join(left_out))
        assessment.evaluation = done


async def _score(
    assessment: Assessment,
    variant: str,
    examples: Sequence[Example | Passage],
    data_set: str,
    progress: EvaluationProgress,
) -> _Run:
    assessment.evaluation = progress
    deployed_at = await _deployment(assessment, variant, examples)
    scores = await assessment.known_scores(variant, data_set)
    for start in range(len(scores), len(examples), AT_ONCE):
        assessment.evaluation = replace(progress, done=progress.done + start)
        new = await assessment.judge.score(variant, examples[start : start + AT_ONCE])
        if assessment.deployed_at(variant) == deployed_at:  # else it may be another artifact's
            await assessment.keep_scores(variant, data_set, start, new)
        scores += new
    return _Run(deployed_at, scores)


async def _deployment(
    assessment: Assessment, variant: str, examples: Sequence[Example | Passage]
) -> float:
    """Wait until it is known which deployment of a variant answers, and what its artifact is."""
    if assessment.deployed_at(variant) is None:
        await assessment.judge.score(variant, examples[:1])  # or it is not worth waiting for
    deadline = asyncio.get_running_loop().time() + KNOWN_S
    while (deployed_at := assessment.deployed_at(variant)) is None:
        if asyncio.get_running_loop().time() > deadline:
            raise NotReady(f"{variant} has not said within {KNOWN_S:g} s what it is")
        await asyncio.sleep(LOOK_S)
    return deployed_at


def _require_same(assessment: Assessment, variant: str, run: _Run) -> None:
    if assessment.deployed_at(variant) != run.deployed_at:
        raise NotReady(f"{variant} was deployed again meanwhile")


def _in_words(error: Exception, model: str) -> str:
    if isinstance(error, QuantserveError):
        return str(error)
    logger.error("evaluating %s failed", model, exc_info=error)
    return "internal error; see the log of the quality process"
