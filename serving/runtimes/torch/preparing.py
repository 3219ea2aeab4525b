"""Make an encoder's artifact: load in float32, convert, write, and see that it opens the same."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from serving.errors import ConfigError
from serving.runtimes.torch.conversions import CONVERSIONS
from serving.runtimes.torch.encoder import TorchEncoder
from serving.runtimes.torch.footprint import weights_bytes
from serving.runtimes.torch.opening import read_encoder
from serving.runtimes.torch.pooling import AUTO_CLASSES
from serving.runtimes.torch.pretrained import load_pretrained, write_configuration
from serving.runtimes.torch.writing_modules import write_modules
from serving.seams import Head, Prepared, PrepareRequest

TOLERANCE = 1e-5
"""Largest change of a number that opening may make, as a share of its row's length.

The numbers of the weights are the same, bit by bit; where they lie in memory can change the order
of float32 sums, and so their last bits.
"""


def prepare_encoder(request: PrepareRequest) -> Prepared:
    """Write ``weights.safetensors``, ``modules.json`` and ``config.json`` of a converted encoder.

    For CUDA the float32 weights are written, which ``open_encoder`` quantizes on the GPU.

    Raises:
        ConfigError: The recipe cannot convert the model, or the model holds something that cannot
            be written: what was opened again gives other rows.
        SourceError: The checkpoint lacks weights that the head needs, or is no such model.
    """
    assert request.head is not None
    torch.set_num_threads(request.threads)
    conversion = CONVERSIONS[request.recipe]
    auto_class = AUTO_CLASSES[type(request.head)]
    model = load_pretrained(request.checkpoint, auto_class, torch.float32)
    notes: tuple[str, ...] = ("quantized when it is opened",)
    if request.device == "cpu":
        assert conversion.convert_encoder is not None, f"{request.recipe} makes no encoders"
        notes = conversion.convert_encoder(model, request)
    write_configuration(model, request.checkpoint, request.folder)
    write_modules(model, request.folder)
    _check_it_opens(model, request, request.head)
    return Prepared(weights_bytes(model), notes)


def _check_it_opens(model: nn.Module, request: PrepareRequest, head: Head) -> None:
    expected = _rows(model, request, head)
    found = _rows(read_encoder(request.folder, request.recipe, head), request, head)
    lengths = np.linalg.norm(expected, axis=-1, keepdims=True)
    if not (np.abs(found - expected) <= TOLERANCE * lengths).all():
        raise ConfigError(
            f"{request.checkpoint.folder}: the model keeps numbers where an artifact cannot hold "
            f"them; opened again, it gives other answers. Serve it on another runtime"
        )


def _rows(model: nn.Module, request: PrepareRequest, head: Head) -> NDArray[np.float32]:
    return TorchEncoder(model, head, "cpu", request.threads).forward(request.example)
