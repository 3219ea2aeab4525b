"""A service's answers about quality, for the tables and for the commands that print them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import orjson

from serving.seams import DraftDescription
from serving.seams.quality import (
    Estimate,
    EvaluationProgress,
    LabelReport,
    ModelQuality,
    OriginReport,
    ProbeProgress,
    VariantQuality,
    VerdictChange,
)

DONE = ProbeProgress("done", 72, 72, "")
REFERENCE = VariantQuality(
    variant="fp32",
    is_reference=True,
    verdict="indistinguishable",
    reason="the others are judged against it",
    in_auto=True,
    quality_low=1.0,
    origins=(),
    labels=LabelReport("reviews_test", Estimate(0.7476, 0.7279, 0.7663, 1_961), None, None, None),
    worst=(),
    probe_p95_s=0.01,
    probes=DONE,
)
INT8 = VariantQuality(
    variant="int8-dynamic",
    is_reference=False,
    verdict="not enough samples",
    reason="live: 12 samples show differences from 0.5 only; [probes] agree",
    in_auto=True,
    quality_low=0.9642,
    origins=(
        OriginReport(
            origin="live",
            count=5_000,
            measures={
                "agreement": Estimate(0.9812, 0.9642, 0.9901, 512),
                "probability_change": Estimate(0.01234, 0.01134, 0.01334, 512),
                "divergence": Estimate(1.23e-4, 1.01e-4, 1.51e-4, 512),
            },
            smallest_difference=0.0123,
        ),
    ),
    labels=LabelReport(
        "reviews_test",
        Estimate(0.7456, 0.7259, 0.7643, 1_961),
        None,
        Estimate(-0.0020, -0.0111, 0.0071, 1_961),
        0.0123,
    ),
    worst=(),
    probe_p95_s=None,
    probes=DONE,
)
SENTIMENT = ModelQuality(
    model="sentiment",
    task="classification",
    reference="fp32",
    floor=0.9,
    tolerance=0.005,
    evaluation=EvaluationProgress("done", 3_922, 3_922, ""),
    variants=(REFERENCE, INT8),
)
FRESH = replace(
    SENTIMENT,
    model="minilm",
    task="embeddings",
    evaluation=None,
    variants=(replace(REFERENCE, labels=None), replace(INT8, origins=(), labels=None)),
)


CHANGE = VerdictChange(
    at=1_795_896_000.0,  # 2026-11-28 20:00 UTC
    variant="int8-dynamic",
    artifact="0123456789abcdef",
    reference_artifact="fedcba9876543210",
    verdict="degraded",
    reason="[probes] agree, labels do not",
    in_auto=True,
    origins=INT8.origins,
    labels=INT8.labels,
)


def entry(quality: ModelQuality) -> dict[str, Any]:
    """As the route writes it."""
    read: dict[str, Any] = orjson.loads(orjson.dumps(asdict(quality)))
    return read


def with_history(*changes: VerdictChange) -> dict[str, Any]:
    history = orjson.loads(orjson.dumps([asdict(change) for change in changes]))
    return {**entry(SENTIMENT), "history": history}


def model(variant: str, draft: DraftDescription | None = None) -> dict[str, Any]:
    """What ``GET /v1/models`` says of a variant, as far as it is read."""
    said = {"model": "sentiment", "variant": variant, "draft": draft and asdict(draft)}
    return {"id": f"sentiment:{variant}", "quantserve": said}
