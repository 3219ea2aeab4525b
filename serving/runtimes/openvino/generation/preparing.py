"""Make a generator's artifact: load in float32, convert the graph, compare, quantize, write."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray

from serving.errors import ConfigError
from serving.runtimes.openvino.generation.architectures import why_not_architecture, window_of
from serving.runtimes.openvino.generation.paged_decoder import PagedDecoder
from serving.runtimes.openvino.generation.paged_graph import WINDOW, page
from serving.runtimes.openvino.generation.stateful_graph import convert
from serving.runtimes.openvino.linear_layers import describe_layers
from serving.runtimes.openvino.opening import GRAPH, WEIGHTS
from serving.runtimes.openvino.quantization import QUANTIZATIONS
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Prepared, PrepareRequest, Segment

TOLERANCE = 1e-3
"""As of ``openvino.preparing``."""

CHECKED_TOKENS, WHOLE_TOKENS, SINGLE_TOKENS = 80, 40, 4
"""Tokens whose logits are compared: so many of them come at once, then a few one by one, then the
rest at once."""


def prepare_generator(request: PrepareRequest) -> Prepared:
    """Write the graph and its weights.

    Raises:
        ConfigError: OpenVINO cannot convert the model, or what it makes of it answers otherwise.
        SourceError: The checkpoint lacks weights.
    """
    torch.set_num_threads(request.threads)
    name = str(request.checkpoint.folder)
    model: Any = load_pretrained(request.checkpoint, "AutoModelForCausalLM", torch.float32)
    if (reason := why_not_architecture(model.config.model_type)) is not None:
        raise ConfigError(f"{name}: {reason}")
    window = window_of(model.config.to_dict())
    graph = convert(model, name)
    check_answers(graph, model, name, CHECKED_TOKENS if window is None else window)
    del model
    graph = QUANTIZATIONS[request.recipe](graph, request)
    if window is not None:
        graph.set_rt_info(str(window), WINDOW)
    openvino.save_model(graph, request.folder / GRAPH, compress_to_fp16=request.recipe == "bf16")
    written = openvino.Core().read_model(request.folder / GRAPH, request.folder / WEIGHTS)
    return Prepared((request.folder / WEIGHTS).stat().st_size, (describe_layers(written),))


def check_answers(
    graph: openvino.Model, model: Any, name: str, most_tokens: int = CHECKED_TOKENS
) -> None:
    """Compare what a replica would run with the model's own pass, on the same tokens.

    Args:
        graph: Not quantized.
        model: What it was made of.
        name: Of the checkpoint, for messages.
        most_tokens: Compare no more than so many.

    Raises:
        ConfigError: The graph fails, or gives other numbers than the model.
    """
    # Only this implementation has all that attention may have, such as a cap on its scores.
    model.set_attn_implementation("eager")
    num_tokens = min(CHECKED_TOKENS, most_tokens)
    ids = torch.arange(1, num_tokens + 1) * 7 % model.config.vocab_size
    with torch.inference_mode():
        expected: NDArray[np.float32] = model(ids[None]).logits[0].float().numpy()
    try:
        found = _logits_in_pieces(_float32_decoder(graph), ids.tolist())
    except RuntimeError as error:
        raise ConfigError(
            f"{name}: OpenVINO converts the model, but cannot run it with paged attention; serve "
            f"it on another runtime: {error}"
        ) from error
    if not (np.abs(found - expected) <= TOLERANCE * np.abs(expected).max()).all():
        raise ConfigError(
            f"{name}: converted for OpenVINO, the model answers otherwise than in torch; serve it "
            f"on another runtime"
        )


def _float32_decoder(graph: openvino.Model) -> PagedDecoder:
    paged = graph.clone()
    page(paged)
    properties = {
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
    }
    compiled = openvino.Core().compile_model(paged, "CPU", properties)
    return PagedDecoder(compiled, num_slots=1, slot_tokens=CHECKED_TOKENS, weights_bytes=0)


def _logits_in_pieces(decoder: PagedDecoder, tokens: list[int]) -> NDArray[np.float32]:
    singles = range(WHOLE_TOKENS, WHOLE_TOKENS + SINGLE_TOKENS)
    starts = [s for s in (0, *singles, WHOLE_TOKENS + SINGLE_TOKENS) if s < len(tokens)]
    ends = [*starts[1:], len(tokens)]
    return np.concatenate(
        [
            decoder.step([Segment(0, start, tokens[start:end], end - start)])
            for start, end in zip(starts, ends, strict=True)
        ]
    )
