"""``quantserve sizes``: what a checkpoint would take, before its weights are fetched or loaded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import prod
from typing import Annotated

import typer
from rich.table import Table

from serving.app.sizing import Impossible, Sizing, engine_kind, sizings
from serving.checkpoint import SourceHeaders, look_at
from serving.cli.console import cache_size, clean_errors, mebibytes, new_table, out
from serving.config import DEFAULT_MAX_TOKENS
from serving.machine.device import cuda_memory_bytes
from serving.machine.memory import available_bytes
from serving.seams import DeviceName

STREAMS = 8


def sizes_command(
    source: Annotated[
        str, typer.Argument(help="hf:org/name@revision, package:name/path, a folder or GGUF file.")
    ],
    context: Annotated[
        int, typer.Option(min=1, help="Tokens of a generator's sequence, prompt included.")
    ] = DEFAULT_MAX_TOKENS,
    streams: Annotated[int, typer.Option(min=1, help="Sequences that run at once.")] = STREAMS,
) -> None:
    """Print what SOURCE takes in every recipe on every runtime, from its headers alone."""
    with clean_errors():
        headers = look_at(source)
        cells = list(sizings(headers, streams, context))
    held = {"cpu": available_bytes(), "cuda": cuda_memory_bytes()}
    out.print(_title(source, headers, streams, context), soft_wrap=True, markup=False)
    possible = [cell for cell in cells if isinstance(cell, Sizing)]
    for device in ("cpu", "cuda"):
        of_device = [cell for cell in possible if cell.device == device]
        if of_device:
            out.print(sizes_table(device, of_device, held[device]))
            shared = {cell.runtime: cell.shared_bytes for cell in of_device if cell.shared_bytes}
            for runtime, size in shared.items():
                out.print(f"replicas on {runtime} share {mebibytes(size)} MiB more, once")
    if any(cell.kv_cache_bytes is None for cell in possible):
        out.print(
            "KV cache unknown: config.json does not say how many keys and values a token has; a "
            "replica takes more than is said here",
            soft_wrap=True,
        )
    for line in reasons(cell for cell in cells if isinstance(cell, Impossible)):
        out.print(line, soft_wrap=True, markup=False)


def sizes_table(device: DeviceName, cells: Iterable[Sizing], held: int | None) -> Table:
    """One row per recipe and runtime.

    Args:
        device: What all cells run on.
        cells: What to print.
        held: Bytes that the device has left; None if this machine has no such device.
    """
    room = "none here" if held is None else f"{mebibytes(held)} MiB left"
    table = new_table(
        f"on {device} ({room}); MiB, estimated",
        ["recipe", "runtime"],
        ["weights", "KV cache", "a replica" if device == "cpu" else "GPU memory", "preparing"],
    )
    table.add_column("fits")
    for cell in cells:
        table.add_row(
            cell.recipe,
            cell.runtime,
            mebibytes(cell.estimate.weights_bytes),
            cache_size(cell.kv_cache_bytes),
            mebibytes(cell.replica_bytes),
            mebibytes(cell.estimate.preparing_bytes),
            _fits(cell, held),
        )
    return table


def reasons(cells: Iterable[Impossible]) -> list[str]:
    """Say once per reason which recipes it keeps from which runtime."""
    kept: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for cell in cells:
        kept[cell.runtime, cell.reason][cell.recipe] = None
    return [f"{runtime}: {', '.join(names)}: {why}" for (runtime, why), names in kept.items()]


def _title(source: str, headers: SourceHeaders, streams: int, context: int) -> str:
    numbers = sum(prod(shape.shape) for shape in headers.shapes)
    kind = engine_kind(headers)
    said = f"{source}: {headers.config.get('model_type', 'unknown')}, {kind}, {numbers:,} numbers"
    return f"{said}; {streams} streams of {context} tokens" if kind == "generator" else said


def _fits(cell: Sizing, held: int | None) -> str:
    if held is None:
        return "–"
    if cell.replica_bytes + cell.shared_bytes > held:
        return "[red]no[/]"
    if cell.kv_cache_bytes is None:
        return "[yellow]unknown[/]"
    prepares_here = cell.estimate.preparing_bytes <= available_bytes()
    return "[green]yes[/]" if prepares_here else "[yellow]yes; cannot be prepared here[/]"
