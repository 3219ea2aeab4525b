"""Compares sampled live requests with the reference, one at a time; drops what is too much."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from serving.errors import QueueFull, RequestError
from serving.monitor.assessment import Assessment
from serving.monitor.judge import NotComparable
from serving.quality.rate_limit import RateLimit
from serving.seams import DropReason, EncodedSample, Input, Sample

logger = logging.getLogger("ray.serve.quantserve")

MAX_WAITING = 64
"""Samples of all models together; a sample is an input or some hundred tokens."""

DROP_REASONS: tuple[DropReason, ...] = (
    "over_limit",
    "queue_full",
    "reference_busy",
    "not_ready",
    "failed",
)
"""Why a sample gets lost on this side."""


class Shadowing:
    """Takes samples as they come and compares them in the order of their arrival.

    Args:
        assessments: By model.
        on_drop: Told the model, and why a sample was not compared.
    """

    def __init__(
        self,
        assessments: Mapping[str, Assessment],
        on_drop: Callable[[str, DropReason], None],
    ) -> None:
        self._assessments = assessments
        self._on_drop = on_drop
        self._waiting: asyncio.Queue[tuple[Sample, float]] = asyncio.Queue(MAX_WAITING)
        self._limits = {
            name: RateLimit(assessment.config.shadow.max_per_second)
            for name, assessment in assessments.items()
        }

    def offer(self, sample: Sample) -> None:
        """Take a sample, or drop it.

        One of a model or variant that was deployed without this process's knowledge is ignored.
        """
        assessment = self._assessments.get(sample.model)
        if assessment is None or not assessment.knows(sample.variant):
            return
        deployed_at = assessment.deployed_at(sample.variant)
        if deployed_at is None:
            self._on_drop(sample.model, "not_ready")
            return
        if not self._limits[sample.model].take():
            self._on_drop(sample.model, "over_limit")
            return
        try:
            self._waiting.put_nowait((sample, deployed_at))
        except asyncio.QueueFull:
            self._on_drop(sample.model, "queue_full")

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            sample, deployed_at = await self._waiting.get()
            reason = await self._compare(sample, deployed_at)
            if reason is not None:
                self._on_drop(sample.model, reason)

    async def _compare(self, sample: Sample, deployed_at: float) -> DropReason | None:
        assessment = self._assessments[sample.model]
        try:
            comparison = await assessment.judge.compare(sample)
        except NotComparable:
            return "not_ready"
        except QueueFull:
            return "reference_busy"
        except RequestError as error:
            logger.warning("a sample of %s was not compared: %s", sample.model, error)
            return "failed"
        except Exception:
            logger.exception("a sample of %s was not compared", sample.model)
            return "failed"
        if assessment.deployed_at(sample.variant) != deployed_at:
            return "not_ready"  # a new deployment must not answer for the old one
        await assessment.record(sample.variant, comparison, _input(sample))
        return None


def _input(sample: Sample) -> Input:
    return sample.input if isinstance(sample, EncodedSample) else sample.prompt
