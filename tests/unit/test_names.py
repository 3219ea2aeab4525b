"""Every class has a name of its own, and every file a name that says what is in it."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("serving", "loadtests", "deploy", "benchmarks")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))

SAY_NOTHING = {
    *("utils", "util", "helpers", "helper", "common", "misc", "core", "base", "manager", "types"),
    *("backend", "held", "uncounted", "measured", "refreshed", "spots", "calls", "exchange"),
}
"""Names that a file could have whatever is in it, or that only its author understood."""


def test_there_is_something_to_look_at() -> None:
    assert len(FILES) > 200


def test_no_two_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(file.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_s_name_says_nothing(package: str) -> None:
    names = [file for file in FILES if file.is_relative_to(ROOT / package)]
    assert [str(file) for file in names if file.stem in SAY_NOTHING] == []
