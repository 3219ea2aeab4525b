"""Two runs side by side as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from loadtests.report.changes import Change
from loadtests.report.document import Document
from loadtests.report.measures import value_of
from loadtests.report.tables import NOTHING, figure, plain, table
from loadtests.results import Results

RULE = """
A sampled measure counts as changed if Welch's t-test over the figures of the rounds (for agreement
over the pairs) finds a difference at 5 % after Holm's correction for all tests on this page, and if
it changed by at least 5 % of its value, shares by at least 0.01. Sizes are not sampled: they
changed if by at least 5 %. Few rounds find only great changes, so "within noise" does not mean
equal. The test knows how rounds of one run differ, not how two runs hours apart do: run the first
one again before you blame the code.
"""


def comparison(before: Results, after: Results, found: list[Change]) -> Document:
    """Two runs and what changed between them, as ``changes`` found it."""
    parts = [
        "# Comparison of two load tests",
        f"Before: started {plain(before.started_at)}. After: started {plain(after.started_at)}.",
        *_invalid(before, after),
        *_differences(before, after),
        "## What changed",
        "\n".join(f"- {sentence}" for sentence in sentences(found)),
    ]
    for name, group in groupby(found, key=lambda change: change.scenario):
        parts += [f"## {plain(name)}", _table(list(group))]
    parts += ["## The rule", " ".join(RULE.split())]
    return Document("\n\n".join(parts) + "\n", ())


def sentences(found: list[Change]) -> list[str]:
    """Each change beyond noise, worse ones first; then how many comparisons there were."""
    texts = [
        f"**{plain(change.scenario)}, {plain(change.variant)}:** {change.compared.measure.name} "
        f"{_step(change)}: {kind}."
        for kind in ("worse", "better")
        for change in found
        if change.finding == kind
    ]
    counts = Counter(change.finding for change in found)
    total = f"Of {len(found)} comparisons: " + ", ".join(
        f"{counts[kind]} {kind}" for kind in ("worse", "better", "within noise", "no interval")
    )
    return [*texts, f"{total}."] if found else ["The two have no scenario and variant in common."]


def _step(change: Change) -> str:
    measure = change.compared.measure
    sides = [
        figure(side, measure.scale, measure.decimals) for side in (change.before, change.after)
    ]
    return f"{sides[0]} → {sides[1]}, {_percent(change)}"


def _percent(change: Change) -> str:
    before, after = value_of(change.before), value_of(change.after)
    return f"{(after / before - 1) * 100:+.1f} %" if before else NOTHING


def _table(found: list[Change]) -> str:
    rows = []
    for change in found:
        measure = change.compared.measure
        before, after = (
            figure(side, measure.scale, measure.decimals) for side in (change.before, change.after)
        )
        finding = (
            f"**{change.finding}**" if change.finding in ("better", "worse") else change.finding
        )
        p = NOTHING if change.p is None else f"{change.p:.2g}"
        name = f"{plain(change.variant)}: {measure.name}"
        rows.append([name, before, after, _percent(change), p, finding])
    return table(["", "before", "after", "change", "p, Holm", "finding"], rows)


def _invalid(before: Results, after: Results) -> Iterator[str]:
    for name, results in (("before", before), ("after", after)):
        if not results.is_valid:
            reasons = "; ".join(plain(problem) for problem in results.problems)
            yield f"**The run {name} is NOT VALID:** {reasons}."


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
