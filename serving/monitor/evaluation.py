"""Runs a model's labelled data through its variants, in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from serving.errors import NotReady, QuantserveError
from serving.monitor.assessment import Assessment
from serving.quality.dataset import Example, Passage, read_dataset
from serving.quality.labels import LabelledScore, accuracy_report, perplexity_report
from serving.seams import EvaluationProgress
from serving.tasks import GENERATION_TASKS

logger = logging.getLogger("ray.serve.quantserve")

AT_ONCE = 8
"""Examples of one background request: more would hold the replica longer than a client may wait."""


async def evaluate(assessment: Assessment, task: str, dataset: Path) -> None:
    """Score every variant, the reference first, and note progress and results in ``assessment``.

    A variant that does not answer is left out, and the progress says so. Never raises what the data
    or a variant can cause: the progress says that, too.
    """
    progress = EvaluationProgress("running", 0, 0, "")
    assessment.evaluation = progress
    try:
        examples = await asyncio.to_thread(read_dataset, dataset, task)
        variants = assessment.reference_first
        conclude = perplexity_report if task in GENERATION_TASKS else accuracy_report
        progress = replace(progress, total=len(examples) * len(variants))
        reference: list[LabelledScore] | None = None
        for number, variant in enumerate(variants):
            deployed_at = assessment.deployed_at(variant)
            scores: list[LabelledScore] = []
            try:
                for some in _batches(examples):
                    scores += await assessment.judge.score(variant, some)
                    assessment.evaluation = replace(progress, done=progress.done + len(scores))
            except NotReady as error:
                if variant == assessment.reference:
                    raise
                progress = replace(progress, reason=f"{progress.reason}{error} ".lstrip())
            else:
                # Resampling takes a while.
                labels = await asyncio.to_thread(conclude, dataset.stem, scores, reference)
                if assessment.deployed_at(variant) == deployed_at:
                    assessment.set_labels(variant, labels)
                reference = reference or scores
            progress = replace(progress, done=(number + 1) * len(examples))
    except QuantserveError as error:
        assessment.evaluation = replace(progress, state="failed", reason=str(error))
    except Exception:
        logger.exception("evaluating %s failed", assessment.model)
        reason = "internal error; see the log of the quality process"
        assessment.evaluation = replace(progress, state="failed", reason=reason)
    else:
        assessment.evaluation = replace(progress, state="done", reason=progress.reason.rstrip())


def _batches(examples: Sequence[Example | Passage]) -> list[Sequence[Example | Passage]]:
    return [examples[start : start + AT_ONCE] for start in range(0, len(examples), AT_ONCE)]
