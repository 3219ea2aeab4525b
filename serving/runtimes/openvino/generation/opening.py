"""Open a generator of its artifact: page the mapped graph, compile it, put it behind slots."""

from __future__ import annotations

from serving.generator import SlotGenerator
from serving.machine.process_memory import release_freed_memory
from serving.runtimes.openvino.execution import GENERATOR_EXECUTIONS
from serving.runtimes.openvino.generation.paged_decoder import PagedDecoder
from serving.runtimes.openvino.generation.paged_graph import page
from serving.runtimes.openvino.opening import WEIGHTS, compile_graph
from serving.seams import Decoder, GeneratorEngine, OpenGeneratorRequest

FEWEST_THREADS = 2
"""In bfloat16: on one, OpenVINO 2026.4 divides by zero where it compiles a decoder for AMX."""


def open_generator(request: OpenGeneratorRequest) -> GeneratorEngine:
    """Start the generator that ``preparing.prepare_generator`` wrote.

    Raises:
        ConfigError: The artifact is damaged, or this CPU cannot run it in the recipe's precision.
    """
    return SlotGenerator(
        lambda: open_decoder(request),
        request.cores,
        request.max_waiting,
        stuck_after_s=request.stuck_after_s,
    )


def open_decoder(request: OpenGeneratorRequest) -> Decoder:
    """Open the model alone, in the thread that will run it; raises as its caller says."""
    execution = GENERATOR_EXECUTIONS[request.recipe]
    properties = {**execution.properties(), "KV_CACHE_PRECISION": execution.precision}
    threads = (
        max(request.threads, FEWEST_THREADS) if execution.precision == "bf16" else request.threads
    )
    model = compile_graph(request.folder, threads, properties, page)
    release_freed_memory()
    return PagedDecoder(
        model,
        num_slots=request.max_running,
        slot_tokens=request.max_tokens,
        weights_bytes=(request.folder / WEIGHTS).stat().st_size,
    )
