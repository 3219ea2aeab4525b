"""What the documents name is there: files, folders, modules to run, and pages to read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / name for name in ("benchmarks/RESULTS.md", "serving/demo/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)
ROOMS = (ROOT, ROOT / "serving", ROOT / "loadtests")
"""Where a path may begin."""

SOURCES = ("serving", "loadtests", "benchmarks", "deploy", "tests")

CODE = re.compile(r"`([^`\n]+)`")
PYTHON_FILE = re.compile(r"[\w./-]+\.py\b")
FOLDER = re.compile(r"[\w-][\w./-]*/")
MODULE = re.compile(r"python -m ([\w.]+)")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def quoted(document: Path) -> Iterator[str]:
    return (match[1] for match in CODE.finditer(document.read_text(encoding="utf-8")))


def test_there_is_something_to_look_at() -> None:
    pages = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    assert len(pages) > 25
    for pattern in (PYTHON_FILE, MODULE, LINK):
        assert sum(len(pattern.findall(page)) for page in pages) > 20


@each_document
def test_python_files_exist(document: Path) -> None:
    named = {file for code in quoted(document) for file in PYTHON_FILE.findall(code)}
    assert [file for file in sorted(named) if not is_there(file)] == []


@each_document
def test_folders_exist(document: Path) -> None:
    named = {code for code in quoted(document) if FOLDER.fullmatch(code)}
    assert [name for name in sorted(named) if not any((r / name).is_dir() for r in ROOMS)] == []


@each_document
def test_modules_to_run_exist(document: Path) -> None:
    named = set(MODULE.findall(document.read_text(encoding="utf-8")))
    assert [module for module in sorted(named) if not can_run(module)] == []


@each_document
def test_pages_that_are_linked_exist(document: Path) -> None:
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def is_there(file: str) -> bool:
    """A path begins at a room; a bare name is explained by what stands before it."""
    if "/" in file:
        return any((room / file).is_file() for room in ROOMS)
    return any(next((ROOT / folder).rglob(file), None) for folder in SOURCES)


def can_run(module: str) -> bool:
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return False
    is_package = spec is not None and spec.submodule_search_locations is not None
    return spec is not None and (not is_package or find_spec(f"{module}.__main__") is not None)
