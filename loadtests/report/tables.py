"""Markdown tables of a scenario: a row per measure, a column per variant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from loadtests.report.difference import ratio
from loadtests.report.measures import GROUPS, TO_MIB, Found, Measure, value_of
from loadtests.results import IntervalEstimate, ScenarioResult, VariantResult

NOTHING = "–"


def plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>()#|&~!])", r"\\\1", " ".join(text.split()))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text, the others figures. The cells are Markdown already."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def scenario_tables(scenario: ScenarioResult) -> Iterator[str]:
    """Every group's table; then the names of the measures that no variant has."""
    header = ["", *[_heading(variant) for variant in scenario.variants]]
    reference = next((v for v in scenario.variants if v.is_reference), None)
    absent = []
    for group in GROUPS:
        shown = [m for m in group.measures if any(m.of(v) is not None for v in scenario.variants)]
        missing = [measure.name for measure in group.measures if measure not in shown]
        if missing:
            absent.append(group.title + (f" ({'; '.join(missing)})" if shown else ""))
        rows = [
            [measure.name, *[_cell(measure, variant, reference) for variant in scenario.variants]]
            for measure in shown
        ]
        if group is GROUPS[0]:
            rows += _counts(scenario.variants)
        if group.title == "Memory":
            rows += _growth(scenario.variants)
        if rows:
            yield f"**{group.title}**\n\n{table(header, rows)}"
    if absent:
        yield f"Not known of any variant: {'. '.join(absent)}."


def _heading(variant: VariantResult) -> str:
    return plain(variant.variant) + (" (reference)" if variant.is_reference else "")


def _counts(variants: Sequence[VariantResult]) -> list[list[str]]:
    """Requests by how they ended, a row per kind of error that occurred."""
    kinds = sorted({kind for variant in variants for kind in variant.errors})
    return [
        ["requests planned", *[str(variant.planned) for variant in variants]],
        ["answered with success", *[str(variant.ok) for variant in variants]],
        ["cut off", *[str(variant.cut_off) for variant in variants]],
        *[
            [f"errors: {plain(kind)}", *[str(variant.errors.get(kind, 0)) for variant in variants]]
            for kind in kinds
        ],
    ]


def _growth(variants: Sequence[VariantResult]) -> list[list[str]]:
    """Whether memory grew over the rounds."""
    cells = [_first_and_last(variant.server.resident_bytes_by_round) for variant in variants]
    known = any(cell != NOTHING for cell in cells)
    return [["resident, first → last round, MiB", *cells]] if known else []


def _first_and_last(by_round: Sequence[int] | None) -> str:
    if by_round is None or len(by_round) < 2:
        return NOTHING
    return f"{figure(by_round[0], TO_MIB)} → {figure(by_round[-1], TO_MIB)}"


def _cell(measure: Measure, variant: VariantResult, reference: VariantResult | None) -> str:
    found = measure.of(variant)
    if found is None:
        return NOTHING
    text = figure(found, measure.scale, measure.decimals)
    if not measure.has_ratio or reference is None or variant is reference:
        return text
    base = measure.of(reference)
    if isinstance(base, IntervalEstimate) and isinstance(found, IntervalEstimate):
        times = ratio(base, found)
        if times is not None:
            return f"{text} {figure(times.estimate, decimals=2, unit='×')}"
    return f"{text} {value_of(found) / value_of(base):.2f}×" if value_of(base) else text


def figure(found: Found, scale: float = 1, decimals: int = 1, unit: str = "") -> str:
    """A figure and its unit, with its interval behind it if it has one; nothing is a dash."""
    if found is None:
        return NOTHING
    if not isinstance(found, IntervalEstimate):
        return _number(found * scale, decimals) + unit
    text = _number(found.value * scale, decimals) + unit
    if found.low is None or found.high is None:
        return text
    low, high = (_number(end * scale, decimals) for end in (found.low, found.high))
    return f"{text} ({low} … {high})"


def _number(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}"
