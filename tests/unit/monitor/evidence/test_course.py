"""The course of agreement is that of the samples in each step, by variant, origin and artifact."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from serving.monitor.evidence import Evidence, writing
from serving.monitor.evidence.course import course
from serving.quality.statistics import mean_of_shares
from serving.seams import CourseStep
from tests.unit.monitor.evidence.pieces import DAY, PAIR, PROBE_SET, STEP, live, model_config


def agreements(steps: tuple[CourseStep, ...]) -> list[tuple[float, float, int]]:
    return [(step.at, step.agreement.value, step.agreement.count) for step in steps]


def test_a_step_has_the_interval_of_its_own_samples(db: sqlite3.Connection) -> None:
    chance = random.Random(0)
    samples: list[list[float]] = [[], [], []]
    for at in range(30):
        # The second step agrees less; near 1 nothing may be lost by rounding.
        agreement = 1 - chance.random() * (0.5 if 10 <= at < 20 else 1e-7)
        samples[at // 10].append(agreement)
        writing.add_live(db, 1_000.0 + at, PAIR, PROBE_SET, live(agreement), 0)
    steps = course(db, "sentiment", 1_000.0, 10.0)
    assert [step.at for step in steps] == [1_004.5, 1_014.5, 1_024.5]
    for step, own in zip(steps, samples, strict=True):
        assert astuple(step.agreement) == pytest.approx(astuple(mean_of_shares(own)), rel=1e-12)
        assert (step.variant, step.origin, step.artifact) == ("int4", "live", "int4-1")


def test_probes_are_samples_too(db: sqlite3.Connection) -> None:
    writing.add_step(db, 5.0, PAIR, PROBE_SET, STEP)
    writing.add_step(db, 7.0, PAIR, PROBE_SET, replace(STEP, number=1, comparisons=()))
    writing.add_live(db, 6.0, PAIR, PROBE_SET, live(0.25), 0)
    sampled, probed = course(db, "sentiment", 0.0, 10.0)
    assert (sampled.origin, sampled.agreement.value) == ("live", 0.25)
    assert (probed.origin, probed.at, probed.agreement.value) == ("probes", 5.0, 0.75)


def test_artifacts_variants_and_models_are_kept_apart(db: sqlite3.Connection) -> None:
    for agreement, pair in enumerate(
        (
            PAIR,
            replace(PAIR, artifact="int4-2"),
            replace(PAIR, reference_artifact="fp32-2"),
            replace(PAIR, variant="bf16"),
            replace(PAIR, model="minilm"),
        )
    ):
        writing.add_live(db, 5.0, pair, PROBE_SET, live(agreement / 4), 0)
    found = course(db, "sentiment", 0.0, 10.0)
    assert sorted((step.variant, step.agreement.value) for step in found) == [
        ("bf16", 0.75),
        ("int4", 0.0),
        ("int4", 0.25),
        ("int4", 0.5),
    ]


def test_what_was_before_is_left_out_and_so_are_empty_steps(db: sqlite3.Connection) -> None:
    for at in (9.0, 11.0, 45.0):
        writing.add_live(db, at, PAIR, PROBE_SET, live(0.5), 0)
    assert agreements(course(db, "sentiment", 10.0, 10.0)) == [(11.0, 0.5, 1), (45.0, 0.5, 1)]


async def test_a_month_of_samples_is_told_in_so_many_steps() -> None:
    now = 100 * DAY
    evidence = Evidence(Path("nowhere"), [model_config()], lambda: now)
    for hour in range(24 * 30):
        now = (70 + (hour + 0.5) / 24) * DAY
        await evidence.add_live(PAIR, PROBE_SET, live(0.5))
    steps = await evidence.course("sentiment", 70 * DAY, 30 * DAY / 48)
    assert [step.agreement.count for step in steps] == [15] * 48
    evidence.close()
