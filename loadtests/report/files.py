"""Writes documents into a folder."""

from __future__ import annotations

from pathlib import Path

from loadtests.report.document import Document, report
from loadtests.report.page import page
from loadtests.results import Results


def write_report(results: Results, folder: Path) -> Path:
    """Write ``report.md``, its pictures and ``report.html``; return the latter's path."""
    return write_document(report(results), folder, "report", "Load test")


def write_document(document: Document, folder: Path, name: str, title: str) -> Path:
    """Write ``NAME.md``, its pictures and ``NAME.html`` into a folder, which is made if missing.

    Returns:
        Path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(document.markdown, "utf-8")
    for picture in document.pictures:
        (folder / f"{picture.name}.svg").write_text(picture.svg, "utf-8")
    path = folder / f"{name}.html"
    path.write_text(page(document, title), "utf-8")
    return path
