"""Pieces of evidence to write and read."""

from __future__ import annotations

import numpy as np

from serving.config import ModelConfig
from serving.monitor.evidence import JudgedPair, LiveSample, ProbeStep
from serving.seams import (
    Comparison,
    Estimate,
    Input,
    LabelReport,
    OriginReport,
    Verdict,
    VerdictChange,
)

PAIR = JudgedPair("sentiment", "int4", "int4-1", "fp32", "fp32-1", None)
PROBE_SET, DATA_SET = "the probes", "the data"
AGREEMENT = Estimate(0.9, 0.8, 0.95, 72)
ORIGIN = OriginReport("probes", 72, {"agreement": AGREEMENT}, 0.1)
LABELS = LabelReport("reviews", AGREEMENT, None, Estimate(-0.1, float("-inf"), 0.0, 1), 0.2)
STEP = ProbeStep(
    number=0,
    answered=2,
    comparisons=(Comparison(0.5, {"cosine": 0.75}), Comparison(1.0, {})),
    seconds=None,
    rows=np.array([[1.5, -2.0, 3.25], [0.1, 0.2, 0.3]], np.float32),
)
MINUTE = 60.0
DAY = 86_400.0


def model_config(name: str = "sentiment", **quality: object) -> ModelConfig:
    """A model in two variants."""
    return ModelConfig.model_validate(
        {
            "name": name,
            "task": "classification",
            "source": "nowhere",
            "variants": ["fp32", "int4"],
            "quality": quality,
        }
    )


def live(agreement: float = 1.0, given: Input | None = None) -> LiveSample:
    """A live sample."""
    return LiveSample(Comparison(agreement, {"divergence": 0.25}), given)


def change(at: float = 1_000.0, verdict: Verdict = "degraded") -> VerdictChange:
    """A verdict of ``PAIR``."""
    return VerdictChange(
        at=at,
        variant=PAIR.variant,
        artifact=PAIR.artifact,
        reference_artifact=PAIR.reference_artifact,
        verdict=verdict,
        reason="because",
        in_auto=True,
        origins=(ORIGIN,),
        labels=LABELS,
    )
