"""Writes a comparison: the table as Markdown and CSV, and a picture of its ratios."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isclose
from pathlib import Path

from loadtests.report.ratios_picture import RatioPanel, ratios_picture
from loadtests.results import IntervalEstimate
from serving.app.comparison.quantities import Quantity, Row
from serving.cli.comparison_tables import csv_table, markdown_table, shown

NOT_DRAWN = ("private_bytes",)
"""The picture is wide enough."""


def write_comparison(title: str, conditions: str, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write ``comparison.md``, ``.csv`` and ``.svg`` into a folder, which is made if missing.

    Args:
        title: What was compared on what.
        conditions: What the figures were measured under.
        rows: The reference first.
        folder: Where.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture = ratios_picture(list(panels(rows)), [row.variant for row in rows])
    texts = {
        "comparison.md": (
            f"# {title}\n\n{markdown_table(rows)}\n{conditions}\n\n"
            f"![{picture.caption}]({picture.name}.svg)\n"
        ),
        "comparison.csv": csv_table(rows),
        f"{picture.name}.svg": picture.svg,
    }
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in texts]


def panels(rows: Sequence[Row]) -> Iterator[RatioPanel]:
    """A panel for each quantity with a ratio, and for each in which the reference has 1."""
    for name, quantity in rows[0].quantities.items():
        title = shown(name).title.partition(",")[0]
        is_one = quantity.ratio is not None or isclose(quantity.figure.value, 1, abs_tol=1e-5)
        if is_one and name not in NOT_DRAWN:
            yield RatioPanel(title, [_drawn(row.quantities[name]) for row in rows])


def _drawn(quantity: Quantity) -> IntervalEstimate:
    one = quantity.ratio or quantity.figure
    return IntervalEstimate(value=one.value, low=one.low, high=one.high)
