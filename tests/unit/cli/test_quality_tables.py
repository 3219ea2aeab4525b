"""The tables of ``quantserve quality``."""

from __future__ import annotations

import io
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from serving.cli.quality_tables import drafts_table, labels_table, measures_table, verdict_table
from serving.cli.verdict_history import history_table
from serving.seams import DraftDescription
from serving.seams.quality import (
    Estimate,
    LabelReport,
    OriginReport,
    ProbeProgress,
)
from tests.unit.cli.quality_answers import (
    CHANGE,
    FRESH,
    INT8,
    REFERENCE,
    SENTIMENT,
    entry,
    model,
    with_history,
)


def screen_of(table: Table | None, width: int = 80) -> str:
    assert table is not None
    screen = Console(width=width, record=True, file=io.StringIO())
    screen.print(table)
    return screen.export_text()


def test_a_verdict_comes_with_its_reason() -> None:
    text = screen_of(verdict_table(entry(SENTIMENT)), 200)
    rows = [line.split() for line in text.splitlines()]
    [reference] = [row for row in rows if row[:1] == ["fp32"]]
    [int8] = [row for row in rows if row[:1] == ["int8-dynamic"]]
    assert reference == ["fp32", "indistinguishable", "yes", "the", "reference"]
    assert int8[:5] == ["int8-dynamic", "not", "enough", "samples", "yes"]
    assert INT8.reason in text
    assert "reference fp32, floor 0.900, tolerance 0.005" in text


def test_every_measure_comes_with_its_interval_and_count() -> None:
    text = screen_of(measures_table(entry(SENTIMENT)))
    assert "0.981 [0.964, 0.990] n=512" in text
    assert "0.0123 [0.0113, 0.0133] n=512" in text
    assert "1.2e-04 [1.0e-04, 1.5e-04] n=512" in text
    assert "int8-dynamic live smallest difference 0.012" in " ".join(text.split())


def test_a_measured_accuracy_stands_beside_the_reference_s() -> None:
    text = screen_of(labels_table(entry(SENTIMENT)))
    assert "sentiment on reviews_test, beside fp32" in text
    for shown in (
        "0.7476 n=1,961",
        "[0.7279, 0.7663]",
        "0.7456 n=1,961 -0.0020 0.0123",
        "[-0.0111, +0.0071]",
    ):
        assert shown in " ".join(text.split())


def test_perplexity_is_told_as_a_ratio() -> None:
    perplexity = Estimate(23.4567, 21.0, 26.0, 5_120)
    labels = LabelReport(
        "reviews", None, perplexity, Estimate(0.0123, 0.0101, 0.0145, 5_120), 0.003
    )
    alone = replace(labels, difference=None, smallest_difference=None)
    variants = (replace(REFERENCE, labels=alone), replace(INT8, labels=labels))
    text = screen_of(labels_table(entry(replace(SENTIMENT, variants=variants))))
    for shown in ("perplexity", "ratio minus 1", "23.457 n=5,120", "+0.0123", "0.0030"):
        assert shown in text


def test_an_interval_without_an_end_says_so() -> None:
    single = OriginReport("live", 1, {"cosine": Estimate(0.9, -inf, inf, 1)}, 1.0)
    quality = replace(SENTIMENT, variants=(REFERENCE, replace(INT8, origins=(single,))))
    assert "0.90000 [–∞, ∞] n=1" in screen_of(measures_table(entry(quality)))


def test_nothing_measured_is_no_table() -> None:
    assert measures_table(entry(FRESH)) is None
    assert labels_table(entry(FRESH)) is None


@pytest.mark.parametrize("make", [verdict_table, measures_table, labels_table])
def test_a_table_fits_80_columns(make) -> None:
    report = INT8.origins[0]
    full = replace(report, measures={**report.measures, "cosine": Estimate(0.99987, 0.9998, 1, 5)})
    crowded = replace(SENTIMENT, variants=(REFERENCE, replace(INT8, origins=(full,))))
    text = screen_of(make(entry(crowded)))
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "int8-dynamic" in text
    # A figure stands in one line with its interval and count.
    assert all(line.count("[") == line.count("]") for line in text.splitlines())


def test_a_change_of_a_verdict_comes_with_its_grounds() -> None:
    text = screen_of(history_table(with_history(CHANGE)), 200)
    for shown in (
        "2026-11-28 20:00:00",
        "degraded",
        "live 0.981 [0.964, 0.990] n=512",
        "reviews_test -0.0020 [-0.0111, +0.0071] n=1,961",
        "01234567 beside fedcba98",
        CHANGE.reason,
    ):
        assert shown in text


def test_a_history_fits_80_columns() -> None:
    text = screen_of(history_table(with_history(CHANGE, replace(CHANGE, labels=None, origins=()))))
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert text.count("int8-dynamic") == 2


def test_no_change_is_no_table() -> None:
    assert history_table(with_history()) is None


@pytest.mark.parametrize(
    ("probes", "said"),
    [
        (ProbeProgress("probing", 60, 72, "probing 60 of 72"), "; probing 60 of 72"),
        (ProbeProgress("done", 72, 72, ""), ""),
    ],
)
def test_whoever_has_not_answered_all_probes_says_how_far_it_is(
    probes: ProbeProgress, said: str
) -> None:
    variants = tuple(replace(one, probes=probes) for one in (REFERENCE, INT8))
    text = screen_of(verdict_table(entry(replace(SENTIMENT, variants=variants))), 200)
    lines = [line.rstrip() for line in text.splitlines()]
    assert any(line.endswith(f"the reference{said}") for line in lines)
    assert any(line.endswith(f"{INT8.reason}{said}") for line in lines)


def test_progress_that_is_the_reason_is_said_once() -> None:
    probes = ProbeProgress("probing", 31, 72, "probing 31 of 72")
    int8 = replace(INT8, probes=probes, reason=probes.reason)
    text = screen_of(verdict_table(entry(replace(SENTIMENT, variants=(REFERENCE, int8)))), 200)
    assert text.count("probing 31 of 72") == 1


def drafted(accepted: int, rejected: int, by: str = "int8-dynamic") -> dict[str, Any]:
    judged = accepted + rejected
    acceptance = accepted / judged if judged else None
    return model("fast", DraftDescription(by, "auto", accepted, rejected, 9, acceptance))


def test_what_was_accepted_stands_beside_the_draft_s_agreement() -> None:
    models = [model("fp32"), drafted(4_000, 1_000), {**drafted(1, 1)}]
    models[2]["quantserve"] = {**models[2]["quantserve"], "model": "other"}
    screen = screen_of(drafts_table(entry(SENTIMENT), models))
    assert "0.800 n=5,000" in screen
    assert "live 0.981 [0.964, 0.990] n=512" in screen
    assert "n=2" not in screen
    assert drafts_table(entry(SENTIMENT), models[:1]) is None


def test_a_draft_that_was_not_read_yet_or_is_the_reference() -> None:
    screen = screen_of(drafts_table(entry(SENTIMENT), [drafted(0, 0, by="fp32")]))
    assert "–" in screen
    assert "the reference" in screen
