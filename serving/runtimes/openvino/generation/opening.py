"""Open a generator of its artifact: page the mapped graph, compile it, put it behind slots."""

from __future__ import annotations

from functools import partial

import openvino

from serving.errors import ConfigError
from serving.generator import SlotGenerator
from serving.machine.process_memory import release_freed_memory
from serving.runtimes.openvino.execution import GENERATOR_EXECUTIONS
from serving.runtimes.openvino.generation.architectures import why_not_so_long
from serving.runtimes.openvino.generation.paged_decoder import PagedDecoder
from serving.runtimes.openvino.generation.paged_graph import page, window_of
from serving.runtimes.openvino.opening import WEIGHTS, compile_graph
from serving.seams import Decoder, GeneratorEngine, OpenGeneratorRequest

FEWEST_THREADS = 2
"""In bfloat16: on one, OpenVINO 2026.4 divides by zero where it compiles a decoder for AMX."""


def open_generator(request: OpenGeneratorRequest) -> GeneratorEngine:
    """Start the generator that ``preparing.prepare_generator`` wrote.

    Raises:
        ConfigError: This CPU cannot run it in the recipe's precision.
        MayPass: As of ``compile_graph``.
    """
    return SlotGenerator(
        lambda: open_decoder(request),
        request.cores,
        request.max_waiting,
        stuck_after_s=request.stuck_after_s,
    )


def open_decoder(request: OpenGeneratorRequest) -> Decoder:
    """Open the model alone, in the thread that will run it; raises as its caller says.

    Keys and values are kept as they are computed, unless 8 bits are asked for. In those, which are
    the plugin's own default, a prompt that comes in two pieces gets other logits than one in a
    whole: scales of keys are those of the tokens that a block holds by then.
    """
    execution = GENERATOR_EXECUTIONS[request.recipe]
    is_bf16 = execution.precision == "bf16"
    properties = {
        **execution.properties(),
        "KV_CACHE_PRECISION": "u8" if request.kv_cache == "int8" else execution.precision,
    }
    threads = max(request.threads, FEWEST_THREADS) if is_bf16 else request.threads
    model = compile_graph(request.folder, threads, properties, partial(_page, request.max_tokens))
    release_freed_memory()
    return PagedDecoder(
        model,
        num_slots=request.max_running,
        slot_tokens=request.max_tokens,
        weights_bytes=(request.folder / WEIGHTS).stat().st_size,
    )


def _page(max_tokens: int, graph: openvino.Model) -> None:
    if (reason := why_not_so_long(window_of(graph), max_tokens)) is not None:
        raise ConfigError(reason)
    page(graph)
