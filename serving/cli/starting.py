"""Shows how a service starts: one steady table in a terminal, lines anywhere else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serving.cli.console import err, out

Name = tuple[str, str]
"""Model and variant."""

STYLES = {
    "ready": "green",
    "loading": "yellow",
    "preparing": "yellow",
    "waiting": "dim",
    "failed": "red",
}
"""Of every state, in the order in which they are counted."""


@dataclass(frozen=True, slots=True)
class VariantProgress:
    """How far one variant is.

    Attributes:
        state: One of ``STYLES``.
        reason: Why it is not ready, in words; empty if it is.
    """

    state: str
    reason: str


READY = VariantProgress("ready", "")
WAITING = VariantProgress("waiting", "waiting to be deployed")


def read_progress(
    answer: Mapping[str, object], names: Sequence[Name]
) -> dict[Name, VariantProgress]:
    """How far each variant is by an answer of ``/v2/health/ready``.

    Args:
        answer: Its JSON.
        names: Every configured variant.
    """
    entries = answer.get("not_ready", [])
    assert isinstance(entries, list)
    missing = {
        (entry["model"], entry["variant"]): VariantProgress(entry["state"], entry["reason"])
        for entry in entries
    }
    return {name: missing.get(name, READY) for name in names}


def is_settled(progress: Mapping[Name, VariantProgress]) -> bool:
    """Whether every variant is ready or has failed."""
    return all(one.state in ("ready", "failed") for one in progress.values())


def count_line(progress: Mapping[Name, VariantProgress]) -> str:
    """How many are ready of how many, and what the others do."""
    counts = Counter(one.state for one in progress.values())
    others = [f"{counts[state]} {state}" for state in STYLES if state != "ready" and counts[state]]
    return ", ".join([f"{counts['ready']} of {len(progress)} variants ready", *others])


class StartView:
    """Progress of a start, from its beginning until every variant has settled; a context manager.

    Args:
        names: Every configured variant.
        started: When the start began, on the monotonic clock.
        console: Where it is shown.
    """

    def __init__(self, names: Sequence[Name], started: float, console: Console = out) -> None:
        self._started = started
        self._console = console
        self._stage = ""
        self._progress = dict.fromkeys(names, WAITING)
        # What Ray prints meanwhile appears above it.
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=2,
            transient=True,
        )

    def __enter__(self) -> StartView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show_stage(self, stage: str) -> None:
        """Say what happens before there is anything to count."""
        self._stage = stage
        if not self._console.is_terminal:
            self._print(self._console, stage)

    def show(self, progress: Mapping[Name, VariantProgress]) -> None:
        """Show how far the variants are; where there is no terminal, what has changed."""
        self._stage = ""
        for name, one in progress.items():
            if one == self._progress[name]:
                continue
            if one.state == "failed":
                self._print(err, f"{':'.join(name)}: {one.reason}")
            elif not self._console.is_terminal:
                self._print(self._console, f"{':'.join(name)}: {one.reason or one.state}")
        self._progress = dict(progress)

    def _print(self, console: Console, line: str) -> None:
        console.print(f"{self._seconds():6.1f} s  {line}", markup=False, soft_wrap=True)

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _render(self) -> RenderableType:
        headline = self._stage or count_line(self._progress)
        table = Table.grid(padding=(0, 2))
        for model in dict.fromkeys(model for model, _ in self._progress):
            table.add_row(f"  {model}", self._variants_of(model))
        return Group(Text(f"{self._seconds():6.1f} s  {headline}"), table)

    def _variants_of(self, model: str) -> Text:
        words = [
            Text(f"{variant} {one.state}", STYLES[one.state])
            for (owner, variant), one in self._progress.items()
            if owner == model
        ]
        return Text("  ").join(words)
