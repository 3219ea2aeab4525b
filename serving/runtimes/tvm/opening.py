"""Open what ``preparing`` wrote: machine code, and numbers where their file is mapped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from serving.errors import ConfigError, MayPass
from serving.machine.isa import cpu_flags
from serving.runtimes.tvm.encoder import TvmEncoder
from serving.runtimes.tvm.graph_files import FACTS, FUNCTION, LIBRARY, WEIGHTS, LibraryFacts
from serving.runtimes.tvm.library import CompiledGraph
from serving.seams import EncoderEngine, OpenRequest

TYPES: Mapping[str, type[np.floating[Any]]] = {"F32": np.float32, "F16": np.float16}
"""By safetensors' names, those of numbers; others are of what lies between them."""


def open_encoder(request: OpenRequest) -> EncoderEngine:
    """Make the engine.

    Raises:
        ConfigError: The artifact is damaged, or was compiled for another CPU.
        MayPass: It cannot be read or opened now.
    """
    file, library = request.folder / FACTS, request.folder / LIBRARY
    try:
        facts = LibraryFacts.model_validate_json(file.read_bytes())
        size = library.stat().st_size
    except OSError as error:
        raise MayPass(f"{error.filename}: it cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(f"{file}: it cannot be read: {error}") from error
    if size != facts.library_bytes:
        raise ConfigError(f"{library}: it has {size} bytes, not {facts.library_bytes}")
    if missing := sorted(set(facts.flags) - cpu_flags()):
        raise ConfigError(
            f"{library}: it was compiled for a CPU with {', '.join(missing)}, which this one lacks"
        )
    numbers = map_numbers(request.folder / WEIGHTS)
    graph = CompiledGraph(library, numbers, FUNCTION, request.threads)
    return TvmEncoder(graph, facts, request.head)


def map_numbers(file: Path) -> list[NDArray[np.floating[Any]]]:
    """Arrays of a safetensors file in its own order, where it is mapped.

    Raises:
        ConfigError: It is damaged.
        MayPass: It cannot be read or mapped now.
    """
    try:
        # DLPack hands out what may be written to only; whoever did would write to a copy.
        mapped = np.memmap(file, np.uint8, mode="c")
        start = 8 + int(mapped[:8].view("<u8")[0])
        header: dict[str, Any] = json.loads(mapped[8:start].tobytes())
        return [
            mapped[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
            .view(TYPES[entry["dtype"]])
            .reshape(entry["shape"])
            for entry in header.values()
            if entry["dtype"] in TYPES
        ]
    except OSError as error:
        raise MayPass(f"{file}: it cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: it cannot be read: {error}") from error
