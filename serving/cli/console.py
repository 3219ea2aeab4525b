"""What every command prints with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serving.artifacts.key import SHORT_ID_DIGITS
from serving.errors import QuantserveError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@contextlib.contextmanager
def clean_errors() -> Iterator[None]:
    """Print an expected error as one message, and leave with status 1."""
    try:
        yield
    except QuantserveError as error:
        err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None


def mebibytes(size: float | None) -> str:
    """A size in MiB, or a dash."""
    return "–" if size is None else f"{size / 1024**2:,.1f}"


def cache_size(size: int | None) -> str:
    """The size of a cache of keys and values in MiB: a dash where there is none."""
    return "unknown" if size is None else mebibytes(size or None)


def short_id(artifact_id: str) -> str:
    """The beginning of an artifact's id, which commands take for all of it."""
    return artifact_id[:SHORT_ID_DIGITS]


def new_table(title: str, texts: list[str], numbers: list[str]) -> Table:
    """An empty table that fits 80 columns: columns of text, then columns of numbers."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in texts:
        # Narrow terminals wrap the others first: a name cut short names nothing.
        table.add_column(column, no_wrap=column == texts[0])
    for column in numbers:
        table.add_column(column, justify="right")
    return table
