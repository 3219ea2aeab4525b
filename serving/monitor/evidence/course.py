"""How agreement went over time, out of the samples that are kept."""

from __future__ import annotations

import sqlite3

from serving.quality.statistics import mean_of_shares_by_moments
from serving.seams import CourseStep

_STEPS = """
WITH samples AS (
    SELECT pair, at, 'live' AS origin, 1 - agreement AS missing
    FROM live_samples WHERE at >= :since
    UNION ALL
    SELECT pair, at, 'probes', 1 - json_extract(value, '$[0]')
    FROM probe_steps, json_each(comparisons) WHERE at >= :since)
SELECT variant, artifact, reference_artifact, origin,
    avg(at), avg(missing), avg(missing * missing), count(*)
FROM samples JOIN pairs ON pairs.id = pair
WHERE model = :model
GROUP BY variant, origin, artifact, reference_artifact, CAST((at - :since) / :step AS INTEGER)
ORDER BY variant, origin, avg(at)
"""
"""Means of what is missing to 1, of which good variants have little: less is lost by rounding."""


def course(db: sqlite3.Connection, model: str, since: float, step: float) -> tuple[CourseStep, ...]:
    """What was compared of each variant of a model in each step of ``step`` seconds, in order.

    A step in which nothing was compared is not there.

    Raises:
        sqlite3.Error: The database cannot be read.
    """
    found = db.execute(_STEPS, {"model": model, "since": since, "step": step})
    return tuple(
        CourseStep(
            variant=variant,
            origin=origin,
            artifact=artifact,
            reference_artifact=reference_artifact,
            at=at,
            agreement=mean_of_shares_by_moments(1 - missing, square - missing**2, count),
        )
        for variant, artifact, reference_artifact, origin, at, missing, square, count in found
    )
