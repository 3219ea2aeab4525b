"""The table of clients names the versions that are tested."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([\w-]+)(?:\[\w+\])?==([\w.]+)$", re.MULTILINE)


def pins(pattern: str) -> set[tuple[str, str]]:
    files = (ROOT / "tests" / "clients" / "environments").glob(pattern)
    return {pin for file in files for pin in PIN.findall(file.read_text())}


def test_every_version_stands_in_the_table() -> None:
    document = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    rows = "\n".join(line for line in document.splitlines() if line.startswith("|"))
    wanted = pins("*.in")
    assert len(wanted) == 8
    tested = {number for _, number in wanted} | {version("locust")}
    tested |= {number for name, number in pins("*.txt") if name == "openai"}
    assert sorted(number for number in tested if number not in rows) == []


def test_the_lists_hold_what_they_are_for() -> None:
    assert pins("*.in") <= pins("*.txt")
