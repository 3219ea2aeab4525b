"""Open what ``preparing`` wrote: a model whose numbers are mapped from the artifact."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from serving.runtimes.torch.conversions import CONVERSIONS
from serving.runtimes.torch.encoder import TorchEncoder
from serving.runtimes.torch.pooling import AUTO_CLASSES
from serving.runtimes.torch.pretrained import empty_model
from serving.runtimes.torch.reading_modules import read_modules
from serving.seams import EncoderEngine, Head, OpenRequest


def open_encoder(request: OpenRequest) -> EncoderEngine:
    """Make the engine.

    On the CPU nothing is quantized here: ``fp32``, ``bf16`` and ``int4`` run on the mapped file,
    of which ``int8-…`` packs its linear layers into private copies, as fbgemm's kernels need them.
    An artifact for CUDA holds float32 weights, which are quantized on the GPU now.

    Raises:
        ConfigError: The artifact is of another recipe or kind of CPU, or the recipe cannot run on
            the device.
    """
    torch.set_num_threads(request.threads)
    if request.device == "cuda":
        return open_on_gpu(request)
    model = read_encoder(request.folder, request.recipe, request.head)
    return TorchEncoder(model, request.head, request.device, request.threads)


def open_on_gpu(request: OpenRequest) -> EncoderEngine:
    """Likewise in the recipe's form for GPUs, on the request's device, which may stand in for one.

    Raises:
        ConfigError: As ``open_encoder``.
    """
    move_to_gpu = CONVERSIONS[request.recipe].move_to_gpu
    assert move_to_gpu is not None, f"{request.recipe} was prepared for CUDA"
    model = read_encoder(request.folder, request.recipe, request.head)
    model = move_to_gpu(model, request.options, request.device)
    return TorchEncoder(model, request.head, request.device, request.threads)


def read_encoder(folder: Path, recipe: str, head: Head) -> nn.Module:
    """Build the model that an artifact holds, on the CPU."""
    model = empty_model(folder, AUTO_CLASSES[type(head)])
    read_modules(model, folder, CONVERSIONS[recipe].kernels())
    return model
