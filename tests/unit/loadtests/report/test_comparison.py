"""Two runs: changed beyond noise or not."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from loadtests.report.changes import Change, changes, holm
from loadtests.report.comparison import comparison, sentences
from loadtests.results import write_results
from serving.cli import app
from tests.unit.loadtests.report.runs import Made, make_results

MIB = 1024**2
P50 = ("int4", "latency p50, ms")
BASE = {"fp32": Made(0.02), "int4": Made(0.01, off_labels=5, weights=30 * MIB)}


def findings(before: dict[str, Made], after: dict[str, Made], **fields: Any) -> dict[str, str]:
    """Of int4, by measure."""
    return {c.compared.measure.name: c.finding for c in of_int4(before, after, **fields)}


def of_int4(before: dict[str, Made], after: dict[str, Made], **fields: Any) -> list[Change]:
    old, new = make_results(before, seed=1, **fields), make_results(after, seed=2, **fields)
    return [change for change in changes(old, new) if change.variant == "int4"]


def test_the_same_again_is_within_noise() -> None:
    found = findings(BASE, BASE)
    assert set(found.values()) == {"within noise", "not judged"}
    assert found["latency p99, ms"] == "not judged"
    assert found["latency p95, ms"] == "within noise"


def test_each_measure_changes_in_its_own_direction() -> None:
    changed = {**BASE, "int4": Made(0.015, off_labels=0, weights=20 * MIB)}
    found = findings(BASE, changed)
    assert found["latency p50, ms"] == "worse"
    assert found["agreement"] == "better"
    assert found["weights, MiB"] == "better"
    assert found["SLO met, %"] == "within noise"
    back = findings(changed, BASE)
    assert (back["latency p50, ms"], back["weights, MiB"]) == ("better", "worse")


def test_three_rounds_that_differ_show_a_doubling_where_the_requests_were_the_same() -> None:
    """Rounds whose arrivals make the latency differ fivefold, in both runs alike."""
    changed = {**BASE, "int4": Made(0.02, off_labels=5, weights=30 * MIB)}
    pace = (1, 5, 2.2)
    paired = of_int4(BASE, changed, rounds=3, pace=pace)
    assert {c.finding for c in paired if c.compared.measure.name.startswith("latency p5")} == {
        "worse"
    }
    assert all(change.is_paired for change in paired)
    others = make_results(changed, seed=2, rounds=3, pace=pace, plan_seed=9)
    unpaired = changes(make_results(BASE, seed=1, rounds=3, pace=pace), others)
    (p50,) = (c for c in unpaired if (c.variant, c.compared.measure.name) == P50)
    assert (p50.is_paired, p50.finding) == (False, "within noise")
    text = "\n".join(sentences(unpaired))
    assert "Plan or seed differ of m" in text
    assert "Plan or seed differ" not in "\n".join(sentences(paired))


def test_what_could_have_been_found_grows_with_the_noise() -> None:
    quiet, noisy = (
        make_results(BASE, seed=2, rounds=3, pace=pace) for pace in ((1, 1, 1), (1, 1.3, 0.8))
    )
    before = make_results(BASE, seed=1, rounds=3)
    smallest = [
        change.smallest
        for after in (quiet, noisy)
        for change in changes(before, after)
        if (change.variant, change.compared.measure.name) == P50
    ]
    assert smallest[0] == pytest.approx(0.1, abs=0.08)
    assert smallest[1] is not None
    assert smallest[1] > 0.5
    assert "Smallest change that would have been found: latency p50 " in "\n".join(
        sentences(changes(before, noisy))
    )


def test_of_streams_the_tokens_are_judged() -> None:
    base = {"fp32": Made(0.05, ttft_s=0.01), "int4": Made(0.05, ttft_s=0.01)}
    found = findings(base, {**base, "int4": Made(0.09, ttft_s=0.01)})
    assert found["latency p50, ms"] == "not judged"
    assert found["TPOT p50, ms"] == "worse"


def test_another_slo_is_not_compared() -> None:
    old, new = make_results(BASE, slo={"latency_ms": 9}), make_results(BASE, slo={"latency_ms": 99})
    assert "SLO met, %" not in {change.compared.measure.name for change in changes(old, new)}


def test_a_sure_but_small_change_does_not_count() -> None:
    changed = {**BASE, "int4": Made(0.01, off_labels=5, weights=31 * MIB)}
    assert findings(BASE, changed)["weights, MiB"] == "within noise"


def test_one_round_has_no_interval_to_judge_by() -> None:
    found = findings(BASE, {**BASE, "int4": Made(0.1)}, rounds=1)
    assert found["latency p50, ms"] == "no interval"
    assert found["weights, MiB"] == "worse"


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


def test_the_command_says_that_a_run_is_not_valid(tmp_path) -> None:
    write_results(make_results(BASE, lag_s=0.05), tmp_path / "bad")
    write_results(make_results(BASE), tmp_path / "good")
    _, alone = run(tmp_path / "bad")
    assert "NOT VALID: m, fp32: the generator lagged" in alone
    _, both = run(tmp_path / "good", tmp_path / "bad", "--out", tmp_path / "out")
    assert "The run after is NOT VALID: m, fp32: the generator lagged" in both
    assert "The run before" not in both


def test_a_missing_file_is_one_message(tmp_path) -> None:
    status, output = run(tmp_path / "none.json")
    assert (status, "Traceback" in output) == (1, False)
    assert "cannot be read as results" in output
