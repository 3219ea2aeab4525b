"""Two runs: changed beyond noise or not."""

from __future__ import annotations

import pytest
from scipy import stats
from typer.testing import CliRunner

from loadtests.intervals import mean_of
from loadtests.report.changes import changes
from loadtests.report.comparison import comparison, sentences
from loadtests.report.significance import holm, p_value
from loadtests.results import Estimate, write_results
from serving.cli import app
from tests.unit.loadtests.report.runs import Made, make_results

MIB = 1024**2
BASE = {"fp32": Made(0.02), "int4": Made(0.01, off_labels=5, weights=30 * MIB)}


def findings(before: dict[str, Made], after: dict[str, Made], **fields: int) -> dict[str, str]:
    """Of int4, by measure."""
    old, new = make_results(before, seed=1, **fields), make_results(after, seed=2, **fields)
    found = [change for change in changes(old, new) if change.variant == "int4"]
    return {change.compared.measure.name: change.finding for change in found}


def test_the_same_again_is_within_noise() -> None:
    assert set(findings(BASE, BASE).values()) == {"within noise"}


def test_each_measure_changes_in_its_own_direction() -> None:
    changed = {**BASE, "int4": Made(0.015, off_labels=0, weights=20 * MIB)}
    found = findings(BASE, changed)
    assert found["latency p50, ms"] == "worse"
    assert found["agreement"] == "better"
    assert found["weights, MiB"] == "better"
    assert found["SLO met, %"] == "within noise"
    back = findings(changed, BASE)
    assert (back["latency p50, ms"], back["weights, MiB"]) == ("better", "worse")


def test_a_sure_but_small_change_does_not_count() -> None:
    changed = {**BASE, "int4": Made(0.01, off_labels=5, weights=31 * MIB)}
    assert findings(BASE, changed)["weights, MiB"] == "within noise"


def test_one_round_has_no_interval_to_judge_by() -> None:
    found = findings(BASE, {**BASE, "int4": Made(0.1)}, rounds=1)
    assert found["latency p50, ms"] == "no interval"
    assert found["weights, MiB"] == "worse"


def test_the_test_from_intervals_is_that_from_the_values() -> None:
    before, after = [1.0, 1.2, 1.1], [1.3, 1.6, 1.2, 1.5]
    expected = stats.ttest_ind(before, after, equal_var=False).pvalue
    assert p_value(mean_of(before), mean_of(after), 3, 4) == pytest.approx(expected)


def test_values_without_spread_differ_or_do_not() -> None:
    one, other = mean_of([1.0, 1.0]), mean_of([2.0, 2.0])
    assert p_value(one, one, 2, 2) == 1
    assert p_value(one, other, 2, 2) == 0
    assert p_value(one, Estimate(value=1), 2, 1) is None


def test_holm_multiplies_the_least_by_all_and_keeps_the_order() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_the_document_says_what_else_differed() -> None:
    old = make_results(BASE, seed=1)
    new = make_results({**BASE, "bf16": Made()}, rounds=3, lag_s=0.05)
    text = comparison(old, new, changes(old, new)).markdown
    assert "The run after is NOT VALID:" in text
    assert "plan.rounds: 4 → 3" in text
    assert "Only in one of the two: m, bf16" in text


def test_nothing_in_common_is_said() -> None:
    assert sentences([]) == ["The two have no scenario and variant in common."]


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["report", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def test_the_command_compares_two_runs(tmp_path) -> None:
    changed = {**BASE, "int4": Made(0.03, off_labels=5, weights=30 * MIB)}
    old = write_results(make_results(BASE, seed=1), tmp_path / "old")
    write_results(make_results(changed, seed=2), tmp_path / "new")
    status, output = run(old, tmp_path / "new", "--out", tmp_path / "out")
    assert status == 0
    assert "m, int4: latency p50, ms" in output
    assert "worse" in output
    assert "latency p50, ms" in (tmp_path / "out" / "comparison.html").read_text("utf-8")


def test_the_command_writes_a_report_anew_beside_its_results(tmp_path) -> None:
    path = write_results(make_results(BASE), tmp_path)
    status, output = run(path)
    assert (status, (tmp_path / "report.html").exists()) == (0, True)
    assert "report.html" in output


def test_a_missing_file_is_one_message(tmp_path) -> None:
    status, output = run(tmp_path / "none.json")
    assert (status, "Traceback" in output) == (1, False)
    assert "cannot be read as results" in output
