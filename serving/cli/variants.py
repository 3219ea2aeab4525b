"""``quantserve variants``: which recipes work on which runtimes of this machine."""

from __future__ import annotations

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from serving.cli.console import new_table, out
from serving.errors import ConfigError
from serving.machine.device import instructions_of, why_no_cuda
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.runtimes.matrix import why_not
from serving.seams import Combination, DeviceName, EngineKind
from serving.tasks import TASKS


def variants_command() -> None:
    """Print what works here: recipe × runtime × kind of engine × device."""
    out.print(legend("recipe", ((name, _recipe_summary(name)) for name in RECIPES)))
    out.print(legend("runtime", ((name, _runtime_summary(name)) for name in RUNTIMES)))
    out.print(matrix_table("cpu"))
    reason = why_no_cuda()
    if reason is None:
        out.print(matrix_table("cuda"))
    else:
        able = [name for name in RUNTIMES if "cuda" in _devices(name)]
        out.print(f"cuda: {reason}; runtimes that can use one: {', '.join(able) or 'none'}")
    for kind in ("encoder", "generator"):
        names = [name for name in TASKS if _kind(name) == kind]
        out.print(f"tasks of {kind}s: {', '.join(names)}", markup=False)


def legend(what: str, summaries: Iterable[tuple[str, str]]) -> Table:
    """What each entry of a table is."""
    table = new_table("", [what, "what it is"], [])
    for name, summary in summaries:
        table.add_row(escape(name), escape(summary))
    return table


def matrix_table(device: DeviceName) -> Table:
    """One row per recipe and runtime."""
    title = f"on {device} ({instructions_of(device)}), from safetensors"
    table = new_table(title, ["recipe", "runtime", "encoders", "generators"], [])
    for recipe in RECIPES:
        for runtime in RUNTIMES:
            cells = (_cell(recipe, runtime, kind, device) for kind in ("encoder", "generator"))
            table.add_row(escape(recipe), escape(runtime), *cells)
        table.add_section()
    return table


def _cell(recipe: str, runtime: str, kind: EngineKind, device: DeviceName) -> str:
    try:
        reason = why_not(Combination(recipe, kind, device, "safetensors"), runtime)
    except ConfigError as error:  # of a package of somebody else's
        return f"[red]{escape(str(error))}[/]"
    return "[green]works here[/]" if reason is None else f"[dim]{escape(reason)}[/]"


def _recipe_summary(name: str) -> str:
    try:
        return RECIPES[name].summary
    except ConfigError as error:
        return str(error)


def _runtime_summary(name: str) -> str:
    try:
        return RUNTIMES[name].summary
    except ConfigError as error:
        return str(error)


def _devices(name: str) -> tuple[DeviceName, ...]:
    try:
        return RUNTIMES[name].devices
    except ConfigError:
        return ()


def _kind(name: str) -> EngineKind | None:
    try:
        return TASKS[name].kind
    except ConfigError:
        return None
