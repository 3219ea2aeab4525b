"""``quantserve report`` and ``python -m loadtests.report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from loadtests.libraries import require_libraries
from loadtests.results import read_results
from serving.errors import QuantserveError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="results.json of a load test, or its folder.")
]


def report(
    run: Run,
    later: Annotated[
        Path | None,
        typer.Argument(metavar="LATER", help="Those of a later run, to compare RUN with."),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder; that of the (later) run by default.")
    ] = None,
) -> None:
    """Write the report of a load test anew, or compare two: did LATER change beyond noise?"""
    folder = out_folder or _folder_of(later or run)
    try:
        require_libraries()
        page = _report(run, folder) if later is None else _compare(run, later, folder)
    except (QuantserveError, OSError) as error:
        err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    out.print(f"report: {page}", soft_wrap=True, markup=False)


def _report(run: Path, folder: Path) -> Path:
    # SciPy and matplotlib take a while to import; `quantserve --help` should not wait for them.
    from loadtests.report.files import write_report

    results = read_results(run)
    for problem in results.problems:
        err.print(f"[bold red]NOT VALID:[/] {escape(problem)}", soft_wrap=True)
    return write_report(results, folder)


def _compare(before: Path, after: Path, folder: Path) -> Path:
    from rich.markdown import Markdown

    from loadtests.report.changes import changes
    from loadtests.report.comparison import comparison, invalid, sentences
    from loadtests.report.files import write_document

    old, new = read_results(before), read_results(after)
    found = changes(old, new)
    for sentence in (*invalid(old, new), *sentences(found)):
        out.print(Markdown(sentence))
    document = comparison(old, new, found)
    return write_document(document, folder, "comparison", "Comparison of two load tests")


def _folder_of(run: Path) -> Path:
    return run if run.is_dir() else run.parent
