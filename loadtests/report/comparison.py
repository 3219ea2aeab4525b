"""Two runs side by side as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from loadtests.report.changes import Change, Finding
from loadtests.report.document import Document
from loadtests.report.measures import Found, value_of
from loadtests.report.tables import NOTHING, figure, plain, table
from loadtests.results import Results

RULE = """
Judged are a few measures of each variant: the latency's p50 and p95, or of streams the p95 of TTFT
and the p50 of TPOT; the share that met the SLO; the agreement. Where plan and seed are the same,
rounds of one number had the same requests at the same times, and what is tested is the difference
round by round (for the agreement, and as well for the SLO, request by request), of times that of
the logs. Such a measure counts as changed if a t-test finds a difference at 5 % after Holm's
correction for the variant's few tests, and if it changed by at least 5 % of its value, shares by at
least 0.01. So of variants in which nothing changed about one in twenty still shows a change.
"Smallest found" is the change that such a test finds in 4 of 5 cases at the noise that these rounds
had; what is smaller may hide in "within noise", which does not mean equal. Sizes are not sampled:
they changed if by at least 5 %. The test knows how rounds differ, not how two runs hours apart do:
run the first one again before you blame the code.
"""


def comparison(before: Results, after: Results, found: list[Change]) -> Document:
    """Two runs and what changed between them, as ``changes`` found it."""
    parts = [
        "# Comparison of two load tests",
        f"Before: started {plain(before.started_at)}. After: started {plain(after.started_at)}.",
        *invalid(before, after),
        *_differences(before, after),
        "## What changed",
        "\n".join(f"- {sentence}" for sentence in sentences(found)),
    ]
    for name, group in groupby(found, key=lambda change: change.scenario):
        parts += [f"## {plain(name)}", _table(list(group))]
    parts += ["## The rule", " ".join(RULE.split())]
    return Document("\n\n".join(parts) + "\n", ())


def invalid(before: Results, after: Results) -> Iterator[str]:
    """Which run must not be relied on, and why."""
    for name, results in (("before", before), ("after", after)):
        if not results.is_valid:
            reasons = "; ".join(plain(problem) for problem in results.problems)
            yield f"**The run {name} is NOT VALID:** {reasons}."


def sentences(found: list[Change]) -> list[str]:
    """Each change beyond noise, worse ones first; then what was compared, how, and how well."""
    if not found:
        return ["The two have no scenario and variant in common."]
    texts = [
        f"**{plain(change.scenario)}, {plain(change.variant)}:** {change.compared.measure.name} "
        f"{_side(change, change.before)} → {_side(change, change.after)}, {_step(change)}: {kind}."
        for kind in ("worse", "better")
        for change in found
        if change.finding == kind
    ]
    counts = Counter(change.finding for change in found)
    kinds: tuple[Finding, ...] = ("worse", "better", "within noise", "no interval")
    total = f"Of {sum(counts[kind] for kind in kinds)} judged: " + ", ".join(
        f"{counts[kind]} {kind}" for kind in kinds
    )
    return [*texts, f"{total}.", *_unpaired(found), *_smallest(found)]


def _unpaired(found: list[Change]) -> Iterator[str]:
    names = dict.fromkeys(plain(change.scenario) for change in found if not change.is_paired)
    if names:
        yield (
            f"Plan or seed differ of {', '.join(names)}: the requests were others, so rounds are "
            "not paired, and only greater changes are found."
        )


def _smallest(found: list[Change]) -> Iterator[str]:
    """What could have been found, by measure over all scenarios and variants."""
    by_measure: dict[str, list[Change]] = {}
    for change in found:
        if change.smallest is not None:
            by_measure.setdefault(change.compared.measure.name, []).append(change)
    words = []
    for name, group in by_measure.items():
        ends = dict.fromkeys(_least(choose(group, key=_smallest_of)) for choose in (min, max))
        words.append(f"{name.partition(',')[0]} {' to '.join(ends)}")
    if words:
        yield f"Smallest change that would have been found: {'; '.join(words)}."


def _smallest_of(change: Change) -> float:
    return change.smallest or 0.0


def _side(change: Change, found: Found) -> str:
    measure = change.compared.measure
    return figure(found, measure.scale, measure.decimals)


def _step(change: Change) -> str:
    """The change with its interval: in per cent, of shares in their own unit."""
    difference = change.difference
    if difference is None:
        before, after = value_of(change.before), value_of(change.after)
        return f"{(after / before - 1) * 100:+.1f} %" if before else NOTHING
    found, measure = difference.estimate, change.compared.measure
    ends = [end for end in (found.value, found.low, found.high) if end is not None]
    if difference.is_ratio:
        value, low, high = (f"{(end - 1) * 100:+.1f}" for end in ends)
        return f"{value} % ({low} … {high})"
    value, low, high = (f"{end * measure.scale:+.{measure.decimals}f}" for end in ends)
    return f"{value} ({low} … {high})"


def _least(change: Change) -> str:
    """The smallest change that would have been found; of shares none may be great enough."""
    if change.smallest is None or change.difference is None:
        return NOTHING
    if change.difference.is_ratio:
        return f"{change.smallest * 100:.0f} %"
    if change.smallest > 1:
        return "none"
    measure = change.compared.measure
    unit = " points" if measure.scale == 100 else ""
    return f"{change.smallest * measure.scale:.{measure.decimals}f}{unit}"


def _table(found: list[Change]) -> str:
    rows = []
    for change in found:
        is_beyond = change.finding in ("better", "worse")
        rows.append(
            [
                f"{plain(change.variant)}: {change.compared.measure.name}",
                _side(change, change.before),
                _side(change, change.after),
                _step(change),
                NOTHING if change.p is None else f"{change.p:.2g}",
                _least(change),
                f"**{change.finding}**" if is_beyond else change.finding,
            ]
        )
    return table(["", "before", "after", "change", "p, Holm", "smallest found", "finding"], rows)


def _differences(before: Results, after: Results) -> Iterator[str]:
    """What else differs than the service: conditions, plan, scenarios and variants."""
    old = _flat({"conditions": before.conditions, "plan": before.plan})
    new = _flat({"conditions": after.conditions, "plan": after.plan})
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if keys:
        lines = [
            f"- {plain(key)}: {plain(old.get(key, NOTHING))} → {plain(new.get(key, NOTHING))}"
            for key in keys
        ]
        yield "**The two were not measured alike:**\n\n" + "\n".join(lines)
    ours, theirs = _turns(before), _turns(after)
    if ours ^ theirs:
        alone = sorted(f"{scenario}, {variant}" for scenario, variant in ours ^ theirs)
        yield f"Only in one of the two: {plain('; '.join(alone))}."


def _turns(results: Results) -> set[tuple[str, str]]:
    return {(s.name, v.variant) for s in results.scenarios for v in s.variants}


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Nested data as texts by path."""
    if isinstance(value, dict):
        items = [(f"{path}.{key}" if path else str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{path}[{number}]", inner) for number, inner in enumerate(value)]
    else:
        return {path: str(value)}
    return {key: text for name, inner in items for key, text in _flat(inner, name).items()}
