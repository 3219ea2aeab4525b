"""The comparison's table: on the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO

from rich.table import Table

from serving.app.comparison.quantities import Figure, Quantity, Row
from serving.cli.console import new_table

NOTHING = "–"
COLUMNS_AT_ONCE = 3
"""Variants beside the reference in one table of the terminal: so many fit 80 columns."""

TO_MIB = 1 / 2**20


@dataclass(frozen=True, slots=True)
class Shown:
    """How a quantity is shown: its title with the unit, the unit's factor, and its decimals."""

    title: str
    factor: float = 1
    decimals: int = 4


SHOWN = {
    "accuracy": Shown("accuracy"),
    "difference_points": Shown("points to reference", decimals=2),
    "perplexity": Shown("perplexity", decimals=2),
    "same_top_token": Shown("same top token"),
    "time_s": Shown("time, s", decimals=2),
    "first_token_s": Shown("first token, ms", 1e3, 1),
    "tokens_per_s": Shown("tokens/s", decimals=1),
    "resident_bytes": Shown("resident, MiB", TO_MIB, 1),
    "peak_bytes": Shown("peak, MiB", TO_MIB, 1),
    "private_bytes": Shown("private, MiB", TO_MIB, 1),
    "weights_bytes": Shown("weights, MiB", TO_MIB, 1),
    "disk_bytes": Shown("on disk, MiB", TO_MIB, 1),
}


def shown(name: str) -> Shown:
    """How a quantity is shown; a task's own measures by their names."""
    return SHOWN.get(name, Shown(name.replace("_", " ")))


def value_text(name: str, quantity: Quantity) -> str:
    """A figure; with its interval where no ratio stands beside it that has one."""
    look = shown(name)
    has_interval = quantity.ratio is None
    return _text(quantity.figure, look.factor, look.decimals, has_interval=has_interval)


def ratio_text(quantity: Quantity) -> str:
    """How many times the reference's it is, with its interval; empty if there is no ratio."""
    if quantity.ratio is None:
        return ""
    return _text(quantity.ratio, 1, 2 if abs(quantity.ratio.value - 1) > 0.1 else 3, unit="×")


def markdown_table(rows: Sequence[Row]) -> str:
    """A row per variant, the reference first; behind a figure, its ratio to the reference's."""
    names = list(rows[0].quantities)
    lines = [
        ["variant", "recipe", "runtime", *(shown(name).title for name in names)],
        [":--", ":--", ":--", *["--:"] * len(names)],
    ]
    for row in rows:
        cells = [f"`{row.variant}`", f"`{row.recipe}`", f"`{row.runtime}`"]
        for name in names:
            quantity = row.quantities[name]
            parts = [value_text(name, quantity), "" if row is rows[0] else ratio_text(quantity)]
            cells.append(" ".join(filter(None, parts)))
        lines.append(cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def csv_table(rows: Sequence[Row]) -> str:
    """A line per variant in base units; ends of intervals and ratios in columns of their own."""
    suffixes = ("", "_low", "_high", "_ratio", "_ratio_low", "_ratio_high")
    lines = [
        {
            "variant": row.variant,
            "recipe": row.recipe,
            "runtime": row.runtime,
            **{
                name + suffix: value
                for name, quantity in row.quantities.items()
                for suffix, value in zip(suffixes, _numbers(quantity), strict=True)
            },
        }
        for row in rows
    ]
    # Columns that nobody has anything in, such as the interval of a size, are left out.
    names = [name for name in lines[0] if any(line[name] is not None for line in lines)]
    text = StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def terminal_tables(title: str, rows: Sequence[Row]) -> Iterator[Table]:
    """A line per quantity; the reference and a few variants at a time."""
    reference, *others = rows
    groups = [
        others[start : start + COLUMNS_AT_ONCE] for start in range(0, len(others), COLUMNS_AT_ONCE)
    ]
    for number, group in enumerate(groups or [[]]):
        table = new_table(
            "" if number else title, [""], [row.variant for row in (reference, *group)]
        )
        for name, quantity in reference.quantities.items():
            cells = [
                "\n".join(filter(None, [value_text(name, own), ratio_text(own)]))
                for own in (row.quantities[name] for row in group)
            ]
            table.add_row(shown(name).title, value_text(name, quantity), *cells)
        yield table


def _numbers(quantity: Quantity) -> list[float | None]:
    figures = (quantity.figure, quantity.ratio)
    return [
        number
        for one in figures
        for number in ((one.value, one.low, one.high) if one else (None, None, None))
    ]


def _text(
    figure: Figure, factor: float, decimals: int, *, unit: str = "", has_interval: bool = True
) -> str:
    text = f"{figure.value * factor:,.{decimals}f}{unit}"
    if not has_interval or figure.low is None or figure.high is None:
        return text
    low, high = (f"{end * factor:,.{decimals}f}" for end in (figure.low, figure.high))
    return f"{text} ({low} … {high})"
