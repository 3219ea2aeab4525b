"""What nncf makes of a float32 graph, by recipe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import nncf
import openvino
import rich
from nncf.quantization.advanced_parameters import (
    AdvancedCompressionParameters,
    AdvancedQuantizationParameters,
    GroupSizeFallbackMode,
    OverflowFix,
)

from serving.machine.isa import multiplies_int8_exactly
from serving.recipes.int4 import Int4Options
from serving.runtimes.openvino.embedding_tables import compress_tables
from serving.seams import PrepareRequest

nncf.set_log_level(logging.ERROR)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def keep(graph: openvino.Model, request: PrepareRequest) -> openvino.Model:
    """Quantize nothing."""
    return graph


def compress_int8(graph: openvino.Model, request: PrepareRequest) -> openvino.Model:
    """Embedding tables and linear layers to int8, each row of weights with a scale of its own."""
    with _no_progress_bars():
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_ASYM)


def compress_int4(graph: openvino.Model, request: PrepareRequest) -> openvino.Model:
    """Linear layers to 4 bits in groups; the embedding tables and the last layer to int8."""
    assert isinstance(request.options, Int4Options)
    adjust = AdvancedCompressionParameters(group_size_fallback_mode=GroupSizeFallbackMode.ADJUST)
    with _no_progress_bars():
        return nncf.compress_weights(
            graph,
            mode=nncf.CompressWeightsMode.INT4_ASYM,
            group_size=request.options.group_size,
            advanced_parameters=adjust,
        )


def quantize_static(graph: openvino.Model, request: PrepareRequest) -> openvino.Model:
    """Weights and activations to int8 at scales measured over ``request.calibration``."""
    batches = [dict(batch) for batch in request.calibration]
    with _no_progress_bars():
        graph = nncf.quantize(
            graph,
            nncf.Dataset(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(types=["Gather"], validate=False),
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=_overflow_fix()),
        )
    compress_tables(graph)
    return graph


def _overflow_fix() -> OverflowFix:
    """Whether weights keep 7 bits: without VNNI, products of 8 bits saturate where they are added.

    Where they do not, the eighth bit is worth 0.0003 to 0.0008 of a cosine.
    """
    return OverflowFix.DISABLE if multiplies_int8_exactly() else OverflowFix.ENABLE


QUANTIZATIONS: Mapping[str, Callable[[openvino.Model, PrepareRequest], openvino.Model]] = {
    "fp32": keep,
    "bf16": keep,
    "int8-dynamic": compress_int8,
    "int8-static": quantize_static,
    "int8-weights": compress_int8,
    "int4": compress_int4,
}
