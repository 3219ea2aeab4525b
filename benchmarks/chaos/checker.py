"""Turns the log of a fault into its row of the table. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.chaos.log import Fate, Path, SentRequest

LATE_S = 2.0
"""A right answer after more than this is late."""

CALM_S = 5.0
"""So long all answers have to be right and in time for the service to count as recovered."""


DYING_S = 0.1
"""What is sent so shortly after a process was killed may still have reached it."""


@dataclass(frozen=True, slots=True)
class PathRow:
    """What became of the requests of one path that were under way at the fault, or came later.

    Attributes:
        sent: How many.
        lost: Without an answer that helps, by their reason.
        lost_later: How many of these were sent when the fault had happened already, by variant.
        refused: Likewise, by their status.
        wrong: Answered with something else than the variant's known answer.
        late: Answered rightly, but after more than ``LATE_S``.
        slowest_s: Of the right answers.
        recovered_s: Seconds from the fault until all was right and in time; 0 if it always was,
            None if it was not to the end.
    """

    sent: int
    lost: Counter[str]
    lost_later: Counter[str]
    refused: Counter[str]
    wrong: Counter[str]
    late: int
    slowest_s: float
    recovered_s: float | None


@dataclass(frozen=True, slots=True)
class FaultRow:
    """A fault, and what came of it.

    Attributes:
        fault: What it was.
        lasted_s: Seconds until it was undone; 0 of what cannot be.
        paths: What clients saw.
        fired: Alerts that fired, with what they were of.
        expected: Those that had to.
        touched: Requests by variant that were not answered rightly and in time.
        may_lose: Variants of which requests may be lost that were sent while it lasted.
    """

    fault: str
    lasted_s: float
    paths: dict[Path, PathRow]
    fired: Mapping[str, tuple[str, ...]]
    expected: tuple[str, ...]
    touched: Counter[str]
    may_lose: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Alerts that had to fire and did not."""
        return tuple(name for name in self.expected if name not in self.fired)

    @property
    def broken(self) -> tuple[str, ...]:
        """Which promises were not kept."""
        said = self.paths.items()
        return (
            *(f"{path} path: wrong answers" for path, one in said if one.wrong),
            *(
                f"{path} path: lost what was sent after the fault"
                for path, one in said
                if one.lost_later.keys() - set(self.may_lose)
            ),
            *(f"{path} path: not right again" for path, one in said if one.recovered_s is None),
            *(f"alert {name} did not fire" for name in self.missing),
        )

    @property
    def has_recovered(self) -> bool:
        """Whether all was right and in time in the end."""
        return all(said.recovered_s is not None for said in self.paths.values())


def is_late(request: SentRequest) -> bool:
    """Whether a right answer came too late."""
    return request.fate is Fate.RIGHT and request.ended - request.sent > LATE_S


def is_good(request: SentRequest) -> bool:
    """Whether a client got what it asked for, in time."""
    return request.fate is Fate.RIGHT and not is_late(request)


def path_row(
    log: Iterable[SentRequest], path: Path, begun: float, struck: float, until: float
) -> PathRow:
    """Sum up one path.

    Args:
        log: Of all requests.
        path: Whose.
        begun: When the fault began to be done.
        struck: When it was done.
        until: When the last request was sent that had all its time.
    """
    ours = [one for one in log if one.path is path and one.ended >= begun]
    right = [one.ended - one.sent for one in ours if one.fate is Fate.RIGHT]
    return PathRow(
        sent=len(ours),
        lost=_reasons(ours, Fate.LOST),
        lost_later=Counter(
            one.variant for one in ours if one.fate is Fate.LOST and one.sent > struck + DYING_S
        ),
        refused=_reasons(ours, Fate.REFUSED),
        wrong=_reasons(ours, Fate.WRONG),
        late=sum(map(is_late, ours)),
        slowest_s=max(right, default=0.0),
        recovered_s=recovered_s(ours, begun, until),
    )


def touched(log: Iterable[SentRequest], begun: float) -> Counter[str]:
    """Requests by variant that ended after ``begun`` and were not answered rightly and in time."""
    return Counter(one.variant for one in log if one.ended >= begun and not is_good(one))


def recovered_s(log: Sequence[SentRequest], begun: float, until: float) -> float | None:
    """Seconds from a fault until all requests were answered rightly and in time.

    Args:
        log: Requests that were under way at the fault, or came later.
        begun: When the fault began.
        until: When watching ended.

    Returns:
        From the fault to the first good request after the last that was not; None if fewer than
        ``CALM_S`` seconds are left after that one.
    """
    bad = [one.sent for one in log if not is_good(one)]
    if not bad:
        return 0.0
    after = min((one.sent for one in log if one.sent > max(bad)), default=until)
    return max(after - begun, 0.0) if until - after >= CALM_S else None


def table(rows: Sequence[FaultRow]) -> str:
    """The rows in Markdown, two lines for each fault: one for each path."""
    lines = [
        "| fault | path | requests | lost | refused | wrong | late | slowest | right again after "
        "| not right or late, by variant | alerts that fired |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for index, (path, said) in enumerate(row.paths.items()):
            cells = [
                _named(row) if index == 0 else "",
                path.value,
                f"{said.sent}",
                _lost(said),
                _counted(said.refused),
                _counted(said.wrong),
                f"{said.late}",
                f"{said.slowest_s:.1f} s",
                "not" if said.recovered_s is None else f"{said.recovered_s:.1f} s",
                _touched(row) if index == 0 else "",
                _alerts(row) if index == 0 else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _named(row: FaultRow) -> str:
    return f"{row.fault}, for {row.lasted_s:.0f} s" if row.lasted_s else row.fault


def _touched(row: FaultRow) -> str:
    return ", ".join(f"{name} {count}" for name, count in row.touched.most_common()) or "–"


def _alerts(row: FaultRow) -> str:
    said = ", ".join(
        f"`{name}` ({', '.join(of)})" if of else f"`{name}`" for name, of in row.fired.items()
    )
    said = said or "–"
    if row.missing:
        said += f"; **missing: {', '.join(row.missing)}**"
    return said


def _reasons(log: Collection[SentRequest], fate: Fate) -> Counter[str]:
    return Counter(one.reason for one in log if one.fate is fate)


def _lost(said: PathRow) -> str:
    counted = _counted(said.lost)
    return f"{counted}, all under way" if said.lost and not said.lost_later else counted


def _counted(reasons: Counter[str]) -> str:
    if not reasons:
        return "0"
    parts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return parts if len(reasons) == 1 else f"{reasons.total()} ({parts})"
