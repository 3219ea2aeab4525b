"""Make an encoder's artifact, on the GPU that will run it: load, export, build, compare."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from serving.errors import ConfigError
from serving.runtimes.tensorrt.building import build_engine
from serving.runtimes.tensorrt.encoder import open_encoder
from serving.runtimes.tensorrt.engine_files import ENGINE, FACTS, EngineFacts, limits
from serving.runtimes.tensorrt.graph import write_graph
from serving.runtimes.torch.footprint import weights_bytes
from serving.runtimes.torch.model_inputs import as_tensors
from serving.runtimes.torch.padding import refuse_what_padding_changes
from serving.runtimes.torch.pooling import AUTO_CLASSES, pool
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import OpenRequest, Prepared, PrepareRequest

TOLERANCES = {"fp32": 1e-3, "f16": 3e-2}
"""By recipe, the largest difference from torch in float32, as a share of the largest number.

Kernels sum in another order; float16 keeps 11 bits, of which each layer loses some."""


def prepare_encoder(request: PrepareRequest) -> Prepared:
    """Write the engine and what an encoder has to know of it.

    Raises:
        ConfigError: The model cannot be exported, TensorRT cannot build it, or the engine computes
            something else.
        SourceError: The checkpoint lacks weights that the head needs, or is no such model.
    """
    head, example, source = request.head, request.example, request.checkpoint
    assert head is not None
    torch.set_num_threads(request.threads)
    model: Any = load_pretrained(source, AUTO_CLASSES[type(head)], torch.float32)
    refuse_what_padding_changes(model, head, example, source.folder)
    tensors = as_tensors(example, "cpu")
    with torch.inference_mode():
        expected = pool(head, model(**tensors), tensors["attention_mask"]).numpy()
    rows, tokens = limits(model.config.to_dict())
    try:
        with TemporaryDirectory(dir=request.folder) as scratch:
            graph = Path(scratch) / "exported.onnx"
            write_graph(model, head, example, request.recipe, graph)
            engine = build_engine(graph, tuple(example), rows, tokens)
        size = weights_bytes(model)
        facts = EngineFacts(
            gpu=torch.cuda.get_device_name(),
            engine_bytes=len(engine),
            weights_bytes=size,
            max_rows=rows,
            max_tokens=tokens,
        )
        (request.folder / ENGINE).write_bytes(engine)
        (request.folder / FACTS).write_text(facts.model_dump_json())
        _check(expected, request)
    except ConfigError as error:
        raise type(error)(f"{source.folder}: {error}") from error
    return Prepared(size)


def _check(expected: np.ndarray, request: PrepareRequest) -> None:
    assert request.head is not None
    engine = open_encoder(
        OpenRequest(
            request.folder, request.recipe, request.options, request.head, "cuda", request.threads
        )
    )
    difference = np.abs(engine.forward(request.example) - expected).max()
    if not difference <= TOLERANCES[request.recipe] * np.abs(expected).max():
        raise ConfigError("built by TensorRT it computes something else; use another runtime")
