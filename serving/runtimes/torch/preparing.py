"""Make an encoder's artifact: load in float32, convert, write, and see that it opens the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from serving.errors import ConfigError
from serving.runtimes.torch.conversions import CONVERSIONS
from serving.runtimes.torch.encoder import TorchEncoder
from serving.runtimes.torch.footprint import weights_bytes
from serving.runtimes.torch.low_rank import find_beside, put_beside
from serving.runtimes.torch.opening import read_encoder
from serving.runtimes.torch.padding import refuse_what_padding_changes
from serving.runtimes.torch.pooling import AUTO_CLASSES
from serving.runtimes.torch.pretrained import (
    REASON_CHARACTERS,
    load_pretrained,
    write_configuration,
)
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
        ConfigError: The model does not answer the example, or otherwise with padding than without,
            the recipe cannot convert it, or it holds something that cannot be written: what was
            opened again gives other rows.
        SourceError: The checkpoint lacks weights that the head needs, or is no such model.
    """
    head, folder = request.head, request.checkpoint.folder
    assert head is not None, "encoders have a head"
    torch.set_num_threads(request.threads)
    model = load_pretrained(request.checkpoint, AUTO_CLASSES[type(head)], torch.float32)
    refuse_what_padding_changes(model, head, request.example, folder)
    beside = find_beside(request, model)
    with _refused(f"{folder}: recipe {request.recipe} does not suit the model"):
        notes = _convert(model, request)
        if beside is not None:
            put_beside(model, beside)
        expected = _rows(model, request, head)
    write_configuration(model, request.checkpoint, request.folder)
    write_modules(model, request.folder)
    found = _rows(read_encoder(request.folder, request.recipe, head), request, head)
    lengths = np.linalg.norm(expected, axis=-1, keepdims=True)
    if not (np.abs(found - expected) <= TOLERANCE * lengths).all():
        raise ConfigError(
            f"{folder}: the model keeps numbers where an artifact cannot hold them; opened again, "
            f"it gives other answers. Serve it on another runtime"
        )
    return Prepared(weights_bytes(model), notes)


def _convert(model: nn.Module, request: PrepareRequest) -> tuple[str, ...]:
    if request.device == "cuda":
        return ("the artifact holds float32; quantized when it is opened",)
    convert_encoder = CONVERSIONS[request.recipe].convert_encoder
    assert convert_encoder is not None, f"{request.recipe} makes no encoders"
    return convert_encoder(model, request)


def _rows(model: nn.Module, request: PrepareRequest, head: Head) -> NDArray[np.float32]:
    return TorchEncoder(model, head, "cpu", request.threads).forward(request.example)


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Explain what a model of other people's code raises, whatever that is."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        reason = shorten(f"{type(error).__name__}: {error}", REASON_CHARACTERS, placeholder=" …")
        raise ConfigError(f"{what}: {reason}") from error
