"""One colour, marker and line per variant, the same in every picture of every report.

The colours are Okabe and Ito's (2008), which the colour-blind can tell apart; markers and dashes
carry the same in black and white.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Style:
    """How a variant is drawn; ``dashes`` as matplotlib's line styles."""

    colour: str
    marker: str
    dashes: str


GREY = "#b0b0b0"
"""Of what is dominated."""

KNOWN = {
    "fp32": Style("#000000", "o", "-"),
    "bf16": Style("#0072b2", "s", "--"),
    "int8-dynamic": Style("#d55e00", "^", "-."),
    "int4": Style("#009e73", "D", ":"),
}
OTHERS = (
    Style("#cc79a7", "v", "-"),
    Style("#56b4e9", "P", "--"),
    Style("#e69f00", "X", "-."),
    Style("#8c6d00", "*", ":"),
)


def styles(variants: Sequence[str]) -> dict[str, Style]:
    """A style for each of a run's variants; from the ninth on they come round again."""
    others = sorted(set(variants) - KNOWN.keys())
    return KNOWN | {name: OTHERS[place % len(OTHERS)] for place, name in enumerate(others)}
