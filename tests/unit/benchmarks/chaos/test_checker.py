"""What a log of requests is summed up to."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.chaos.checker import (
    CALM_S,
    DYING_S,
    LATE_S,
    FaultRow,
    path_row,
    recovered_s,
    table,
    touched,
)
from benchmarks.chaos.log import Fate, Path, SentRequest

FAULT, END = 100.0, 130.0


def request(
    sent: float,
    fate: Fate = Fate.RIGHT,
    took: float = 0.1,
    path: Path = Path.DIRECT,
    reason: str = "",
) -> SentRequest:
    return SentRequest(path, "minilm:fp32", sent, sent + took, fate, reason)


def steady(*others: SentRequest) -> list[SentRequest]:
    """A good request each second, and others."""
    return [*(request(float(second)) for second in range(90, 130)), *others]


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.REFUSED, Fate.WRONG])
def test_whatever_is_not_right_ends_the_calm(fate: Fate) -> None:
    log = steady(request(102.5, fate), request(104.5, fate))
    assert recovered_s(log, FAULT, END) == 5.0
    row = path_row(log, Path.DIRECT, FAULT, FAULT, END)
    assert row.recovered_s == 5.0
    counted = {Fate.LOST: row.lost, Fate.REFUSED: row.refused, Fate.WRONG: row.wrong}
    assert {name: counter.total() for name, counter in counted.items()} == {
        **dict.fromkeys(counted, 0),
        fate: 2,
    }


def test_a_right_answer_that_is_late_ends_the_calm_too() -> None:
    log = steady(request(103.5, took=LATE_S + 0.1), request(105.5, took=LATE_S - 0.1))
    row = path_row(log, Path.DIRECT, FAULT, FAULT, END)
    assert (row.late, row.recovered_s) == (1, 4.0)
    assert row.slowest_s == pytest.approx(LATE_S + 0.1)
    assert row.lost.total() == row.refused.total() == row.wrong.total() == 0


def test_without_a_bad_answer_there_was_nothing_to_recover_from() -> None:
    assert recovered_s(steady(), FAULT, END) == 0.0


def test_too_few_seconds_of_calm_are_no_recovery() -> None:
    log = steady(request(END - CALM_S, Fate.LOST))
    assert recovered_s(log, FAULT, END) is None
    assert recovered_s(log, FAULT, END + CALM_S) is not None


def test_a_service_that_answers_nothing_has_not_recovered() -> None:
    log = [request(101.0, Fate.LOST, reason="connection")]
    assert recovered_s(log, FAULT, FAULT + 2) is None


def test_what_was_over_before_the_fault_does_not_count_and_what_was_under_way_does() -> None:
    log = [
        request(98.0, Fate.LOST, reason="connection"),
        request(99.95, Fate.LOST, reason="connection"),
    ]
    assert path_row(log, Path.DIRECT, FAULT, FAULT, END).lost == {"connection": 1}


@pytest.mark.parametrize("path", Path)
def test_a_service_has_recovered_if_both_paths_have(path: Path) -> None:
    log = steady(request(END - 1, Fate.LOST, path=path))
    rows = {path: path_row(log, path, FAULT, FAULT, END) for path in Path}
    assert not FaultRow("", 0, rows, {}, (), Counter(), ()).has_recovered
    well = {path: path_row(steady(), path, FAULT, FAULT, END) for path in Path}
    assert FaultRow("", 0, well, {}, (), Counter(), ()).has_recovered


def test_what_was_lost_is_told_apart_by_whether_it_was_under_way() -> None:
    early = request(FAULT - 0.01, Fate.LOST, reason="connection")
    dying = request(FAULT + DYING_S / 2, Fate.LOST, reason="connection")
    later = request(FAULT + 1, Fate.LOST, reason="connection")
    row = path_row([early, dying], Path.DIRECT, FAULT, FAULT, END)
    assert (row.lost.total(), row.lost_later.total()) == (2, 0)
    row = path_row([early, dying, later], Path.DIRECT, FAULT, FAULT, END)
    assert (row.lost.total(), row.lost_later) == (3, {"minilm:fp32": 1})


def test_each_path_has_its_own_row() -> None:
    log = [
        request(101.0, Fate.LOST, path=Path.DIRECT, reason="connection"),
        request(101.0, path=Path.SELECTING),
    ]
    assert path_row(log, Path.SELECTING, FAULT, FAULT, END).lost.total() == 0
    assert path_row(log, Path.SELECTING, FAULT, FAULT, END).sent == 1


def test_the_table_names_what_was_lost_and_which_alert_is_missing() -> None:
    log = steady(
        request(101.0, Fate.LOST, reason="connection"),
        request(102.0, Fate.LOST, reason="504"),
        request(103.0, Fate.LOST, reason="504"),
        request(104.0, Fate.REFUSED, reason="503"),
    )
    row = FaultRow(
        "SIGSTOP of everything",
        9.6,
        {path: path_row(log, path, FAULT, FAULT, END) for path in Path},
        fired={"QuantserveDown": (), "VariantDown": ("minilm:fp32",)},
        expected=("QuantserveDown", "RequestsFailing"),
        touched=touched(log, FAULT),
        may_lose=("minilm:fp32",),
    )
    assert row.missing == ("RequestsFailing",)
    said = table([row])
    first = "| SIGSTOP of everything, for 10 s | selecting | 0 | 0 | 0 | 0 | 0 | 0.0 s | 0.0 s |"
    assert f"{first} minilm:fp32 4 |" in said
    assert "| 3 (2 504, 1 connection) | 1 503 | 0 | 0 |" in said
    assert "`QuantserveDown`, `VariantDown` (minilm:fp32); **missing: RequestsFailing** |" in said


def broken(
    log: list[SentRequest], may_lose: tuple[str, ...] = (), **alerts: tuple[str, ...]
) -> str:
    paths = {path: path_row(log, path, FAULT, FAULT, END) for path in Path}
    row = FaultRow("", 0, paths, {}, alerts.get("expected", ()), touched(log, FAULT), may_lose)
    return "; ".join(row.broken)


def test_promises_are_that_nobody_is_misled_or_lost_and_that_all_is_well_in_the_end() -> None:
    assert broken(steady()) == ""
    lost = steady(request(101.5, Fate.LOST, reason="504"))
    assert broken(lost) == "direct path: lost what was sent after the fault"
    assert broken(lost, may_lose=("minilm:fp32",)) == ""
    assert broken(lost, may_lose=("minilm:other",)) == broken(lost)
    assert broken(steady(request(99.95, Fate.LOST, reason="connection"))) == ""
    assert broken(steady(request(101.5, Fate.REFUSED, reason="503"))) == ""
    wrong = steady(
        request(101.5, Fate.WRONG, path=Path.SELECTING), request(102.5, path=Path.SELECTING)
    )
    assert broken(wrong, may_lose=("minilm:fp32",)) == "selecting path: wrong answers"
    late = steady(request(END - 1, took=LATE_S + 1))
    assert broken(late) == "direct path: not right again"
    assert broken(steady(), expected=("QuantserveDown",)) == "alert QuantserveDown did not fire"
