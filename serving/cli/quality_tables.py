"""Tables of entries of ``GET /v1/quality``: a ``ModelQuality`` of ``seams/quality.py`` as JSON."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from serving.cli.console import new_table

FORMATS = {
    "agreement": ".3f",
    "cosine": ".5f",
    "probability_change": ".4f",
    "divergence": ".1e",
    "perplexity_ratio": ".4f",
    "first_gap": ".3f",
}
"""Digits of each measure: a good cosine is within 0.001 of 1."""


def verdict_table(entry: dict[str, Any]) -> Table:
    """One row per variant: the verdict, whether ``auto`` may choose it, and why.

    Whoever has not answered all probes yet says how far it is.
    """
    table = new_table(
        f"{escape(entry['model'])} ({escape(entry['task'])}): reference "
        f"{escape(entry['reference'])}, floor {entry['floor']:.3f}, "
        f"tolerance {entry['tolerance']:.3f}",
        ["variant", "verdict", "auto", "reason"],
        [],
    )
    for variant in entry["variants"]:
        reason = "the reference" if variant["is_reference"] else variant["reason"]
        if (far := variant["probes"]["reason"]) not in reason:
            reason = f"{reason}; {far}"
        table.add_row(
            escape(variant["variant"]),
            variant["verdict"],
            "yes" if variant["in_auto"] else "no",
            escape(reason),
        )
    return table


def measures_table(entry: dict[str, Any]) -> Table | None:
    """One row per variant, origin and measure; None before anything was compared."""
    table = new_table(
        f"{escape(entry['model'])}: beside {escape(entry['reference'])}; "
        "in brackets: the 95 % interval",
        ["variant", "origin", "measure"],
        ["estimate"],
    )
    for variant in entry["variants"]:
        for report in variant["origins"]:
            for name, estimate in report["measures"].items():
                table.add_row(
                    escape(variant["variant"]),
                    report["origin"],
                    name.replace("_", " "),
                    estimate_text(estimate, FORMATS.get(name, ".3g")),
                )
            table.add_row(
                escape(variant["variant"]),
                report["origin"],
                "smallest difference",
                _number(report["smallest_difference"], ".3f"),
            )
    return table if table.rows else None


def drafts_table(entry: dict[str, Any], models: list[dict[str, Any]]) -> Table | None:
    """One row per variant that another drafts for; None if there is none.

    Args:
        entry: A ``ModelQuality``.
        models: Entries of ``GET /v1/models``, which say what was accepted.
    """
    table = new_table(
        f"{escape(entry['model'])}: share of drafted tokens that were accepted, beside the draft's "
        "own agreement",
        ["variant", "draft", "accepted", "agreement"],
        [],
    )
    variants = {variant["variant"]: variant for variant in entry["variants"]}
    for said in (model["quantserve"] for model in models):
        if said["model"] != entry["model"] or not (draft := said["draft"]):
            continue
        judged = draft["accepted"] + draft["rejected"]
        accepted = "–" if not judged else f"{draft['acceptance']:.3f} n={judged:,}"
        table.add_row(
            escape(said["variant"]),
            escape(draft["variant"]),
            accepted,
            "\n".join(_agreements(variants.get(draft["variant"]))) or "–",
        )
    return table if table.rows else None


def _agreements(variant: dict[str, Any] | None) -> list[str]:
    if variant is None:
        return []
    if variant["is_reference"]:
        return ["the reference"]
    return [
        f"{report['origin']} {estimate_text(report['measures']['agreement'], FORMATS['agreement'])}"
        for report in variant["origins"]
        if "agreement" in report["measures"]
    ]


def labels_table(entry: dict[str, Any]) -> Table | None:
    """One row per variant that was evaluated on labelled data; None if none was.

    Intervals stand below their values: beside them they would not fit.
    """
    evaluated = [variant for variant in entry["variants"] if variant["labels"] is not None]
    if not evaluated:
        return None
    first = evaluated[0]["labels"]
    is_accuracy = first["accuracy"] is not None
    table = new_table(
        f"{escape(entry['model'])} on {escape(first['dataset'])}, beside "
        f"{escape(entry['reference'])}" + ("" if is_accuracy else "; difference: ratio minus 1"),
        ["variant", "accuracy" if is_accuracy else "perplexity", "difference"],
        ["smallest\nshown"],
    )
    for variant in evaluated:
        labels = variant["labels"]
        difference, smallest = labels["difference"], labels["smallest_difference"]
        table.add_row(
            escape(variant["variant"]),
            _two_lines(labels["accuracy"], ".4f")
            if is_accuracy
            else _two_lines(labels["perplexity"], ".3f"),
            "–" if difference is None else "\n".join(_numbers(difference, "+.4f")),
            "–" if difference is None else _number(smallest, ".4f"),
        )
    return table


def estimate_text(estimate: dict[str, Any], form: str) -> str:
    """A value with its interval and its count."""
    value, interval = _numbers(estimate, form)
    return f"{value} {interval} n={estimate['count']:,}"


def _two_lines(estimate: dict[str, Any], form: str) -> str:
    value, interval = _numbers(estimate, form)
    return f"{value} n={estimate['count']:,}\n{interval}"


def _numbers(estimate: dict[str, Any], form: str) -> tuple[str, str]:
    """The value, and its interval."""
    # JSON has no infinity, the end of an interval of a single sample: it comes as null.
    low = "–∞" if estimate["low"] is None else format(estimate["low"], form)
    high = _number(estimate["high"], form)
    return _number(estimate["value"], form), f"[{low}, {high}]"


def _number(value: float | None, form: str) -> str:
    return "∞" if value is None else format(value, form)
