"""Prometheus text: of one process, and of several joined."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(registries: Iterable[CollectorRegistry]) -> str:
    """Render registries of one process as Prometheus text."""
    return "".join(generate_latest(registry).decode() for registry in registries)


def merge_expositions(pages: Iterable[str]) -> str:
    """Join the pages of several processes into one, each metric family in one block.

    Prometheus refuses a page in which a family's ``HELP`` and ``TYPE`` stand twice.
    """
    families: dict[str, list[str]] = {}
    for page in pages:
        for block in page.split("# HELP ")[1:]:
            help_line, type_line, *samples = block.splitlines()
            header = f"# HELP {help_line}\n{type_line}"
            families.setdefault(header, []).extend(samples)
    return "".join(
        "\n".join([header, *samples]) + "\n" for header, samples in sorted(families.items())
    )
