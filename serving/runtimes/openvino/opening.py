"""Open what ``preparing`` wrote: compile the mapped graph for this machine's CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import openvino

from serving.errors import ConfigError, MayPass
from serving.machine.process_memory import release_freed_memory
from serving.runtimes.openvino.encoder import OpenvinoEncoder
from serving.runtimes.openvino.execution import EXECUTIONS
from serving.seams import EncoderEngine, OpenRequest

GRAPH, WEIGHTS = "model.xml", "model.bin"
"""The files of an artifact."""

KERNELS_KEPT = 64
"""Kernels that are kept for shapes that may come again, of each kind.

Every new number of tokens takes a dozen, 0.25 MiB and 1 ms of compiling each in int8-static, few
and small ones in other recipes. Without a bound a replica that sees all shapes of 1,024 tokens
grows by 400 MiB. After 1,000 batches of 1 to 8 texts of any length a process with MiniLM in
int8-static had 187 MiB private with 128 kept kernels, 172 with 96, 156 with 64 and 139 with 32; it
had taken 37, 36, 36 and 38 s of CPU by then, its start included.
"""

PRIMITIVES_KEPT = 16
"""Likewise in oneDNN's own cache below, which keeps 1,024 of them otherwise."""


def open_encoder(request: OpenRequest) -> EncoderEngine:
    """Make the engine.

    Linear layers are packed into private copies, as the kernels need them; embedding tables are
    read where the file is mapped.

    Raises:
        ConfigError: This CPU cannot run it in the recipe's precision.
        MayPass: As of ``compile_graph``.
    """
    model = compile_artifact(request)
    if request.recipe == "bf16":
        check_it_runs_in_bf16(model)
    release_freed_memory()
    return OpenvinoEncoder(model, request.head, (request.folder / WEIGHTS).stat().st_size)


def compile_artifact(request: OpenRequest) -> openvino.CompiledModel:
    """Compile an encoder's graph as its recipe wants it; raises as ``compile_graph``."""
    return compile_graph(request.folder, request.threads, EXECUTIONS[request.recipe].properties())


def compile_graph(
    folder: Path,
    threads: int,
    execution: Mapping[str, str],
    change: Callable[[openvino.Model], None] | None = None,
) -> openvino.CompiledModel:
    """Map an artifact's files and compile the graph for this CPU.

    Args:
        folder: What ``prepare`` wrote.
        threads: How many the graph will run on.
        execution: Further properties of the plugin.
        change: What is done to the graph before; None leaves it as it is.

    Raises:
        MayPass: The artifact cannot be opened now, or is damaged: the library's errors do not tell
            these apart.
    """
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        # Replicas share the cores: pinned to the same ones they would wait for each other.
        "ENABLE_CPU_PINNING": "NO",
        "CPU_RUNTIME_CACHE_CAPACITY": str(KERNELS_KEPT),
        **execution,
    }
    try:
        with _bounded_primitive_cache():
            core = openvino.Core()
            graph = core.read_model(folder / GRAPH, folder / WEIGHTS)
            if change is not None:
                change(graph)
            return core.compile_model(graph, "CPU", properties)
    except RuntimeError as error:
        raise MayPass(
            f"{folder}: OpenVINO cannot open the artifact; remove it and prepare it anew: "
            f"{_last_line(error)}"
        ) from error


def check_it_runs_in_bf16(model: openvino.CompiledModel) -> None:
    """Raise ``ConfigError`` unless what was compiled multiplies in bfloat16.

    A hint that the plugin cannot follow is dropped without a word.
    """
    infos = [node.get_rt_info() for node in model.get_runtime_model().get_ops()]
    linear = [info for info in infos if info["layerType"].value == "FullyConnected"]
    if not all(info["runtimePrecision"].value == "bf16" for info in linear):
        raise ConfigError(
            "recipe 'bf16' on runtime 'openvino': this CPU runs it in float32; use recipe 'fp32'"
        )


@contextmanager
def _bounded_primitive_cache() -> Iterator[None]:
    """Set the size of oneDNN's cache, which it reads once, when it makes its first kernel."""
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    before = os.environ.get(name)
    os.environ.setdefault(name, str(PRIMITIVES_KEPT))
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _last_line(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
