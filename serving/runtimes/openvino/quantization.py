"""What becomes of a float32 graph by recipe: nncf quantizes it, or a checkpoint did."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import nncf
import numpy as np
import openvino
import rich
from nncf.quantization.advanced_parameters import (
    AdvancedCompressionParameters,
    AdvancedQuantizationParameters,
    GroupSizeFallbackMode,
    OverflowFix,
)
from numpy.typing import NDArray

from serving.machine.isa import multiplies_int8_exactly
from serving.recipes.int4 import Int4Options
from serving.runtimes.openvino.embedding_tables import compress_tables
from serving.runtimes.openvino.stored_integers import keep_integers
from serving.runtimes.torch.expanding import read_integers
from serving.seams import PrepareRequest

nncf.set_log_level(logging.ERROR)

NUM_TEXTS, TEXT_TOKENS = 16, 32
"""Of a generator, to choose scales with."""


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


METHODS: Mapping[str, Mapping[str, bool]] = {
    "rtn": {},
    "scale-estimation": {"scale_estimation": True},
    "awq": {"awq": True},
    "gptq": {"gptq": True},
}
"""What nncf is asked for, by ``Int4Options.method``."""


def compress_int4(graph: openvino.Model, request: PrepareRequest) -> openvino.Model:
    """Linear layers to 4 bits in groups; the embedding tables and the last layer to int8.

    Unless the options name another method, scales of a generator are chosen with its layers'
    inputs in mind, on random tokens, and an encoder's weights are rounded to the nearest.
    """
    options = request.options
    assert isinstance(options, Int4Options)
    method, texts = options.method, [dict(batch) for batch in request.calibration]
    if request.kind == "generator":
        if method is None:
            method, texts = "scale-estimation", random_texts(graph)
        texts = [_as_inputs(text["input_ids"]) for text in texts]
    asked = METHODS[method or "rtn"]
    mode = nncf.CompressWeightsMode
    adjust = AdvancedCompressionParameters(group_size_fallback_mode=GroupSizeFallbackMode.ADJUST)
    with _no_progress_bars():
        return nncf.compress_weights(
            graph,
            mode=mode.INT4_SYM if options.symmetric else mode.INT4_ASYM,
            group_size=options.group_size,
            dataset=nncf.Dataset(texts) if asked else None,
            subset_size=max(len(texts), 1),
            advanced_parameters=adjust,
            **asked,
        )


def random_texts(graph: openvino.Model) -> list[dict[str, NDArray[Any]]]:
    """Token ids for a generator's graph: random ones show which inputs are large (decision 10)."""
    (vocabulary,) = list(graph.output("logits").get_partial_shape())[-1:]
    ids = np.random.default_rng(0).integers(vocabulary.get_length(), size=(NUM_TEXTS, TEXT_TOKENS))
    return [{"input_ids": row[None]} for row in ids]


def _as_inputs(ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """All inputs of a generator's graph for one text, int64 (1, tokens)."""
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(ids.shape[1])[None],
        "beam_idx": np.zeros(1, np.int32),
    }


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


def keep_stored(graph: openvino.Model, request: PrepareRequest) -> openvino.Model:
    """Linear layers with the checkpoint's own integers, scales and zeros; the rest in float32."""
    assert request.quantized is not None, "stored is made of a quantized checkpoint"
    keep_integers(graph, read_integers(request.quantized), str(request.quantized.folder))
    return graph


QUANTIZATIONS: Mapping[str, Callable[[openvino.Model, PrepareRequest], openvino.Model]] = {
    "fp32": keep,
    "bf16": keep,
    "int8-dynamic": compress_int8,
    "int8-static": quantize_static,
    "int8-weights": compress_int8,
    "int4": compress_int4,
    "stored": keep_stored,
}
