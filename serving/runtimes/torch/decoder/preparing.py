"""Make the artifact of a generator: a fused model, written, opened again and compared (CPU)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from serving.cores import UnsharedCores
from serving.machine.process_memory import release_freed_memory, return_freed_memory
from serving.runtimes.torch import footprint
from serving.runtimes.torch.conversions import CONVERSIONS
from serving.runtimes.torch.decoder.causal_lm import FusedModel
from serving.runtimes.torch.decoder.fusing import fuse
from serving.runtimes.torch.decoder.opening import open_decoder
from serving.runtimes.torch.decoder.stored_decoder import write_decoder
from serving.runtimes.torch.decoder.torch_decoder import TorchDecoder
from serving.runtimes.torch.kernels.kernel_module import KernelModule
from serving.runtimes.torch.low_rank import find_beside
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Decoder, OpenGeneratorRequest, Prepared, PrepareRequest, Segment

CHECKED_TOKENS, SINGLE_TOKENS = 96, 4
"""Tokens whose logits are compared, and those of them that come one by one: kernels go other ways
for one row, for some and for more than 64."""

Logits = NDArray[np.float32]


def prepare_generator(request: PrepareRequest) -> Prepared:
    """Write what ``opening.open_generator`` reads; on a GPU, what the paged generator reads.

    Raises:
        ConfigError: The model's architecture is none that can be fused, or the recipe cannot
            convert it.
        SourceError: The checkpoint lacks weights.
    """
    if request.device == "cuda":
        from serving.runtimes.torch.cuda.preparing import prepare_paged_generator

        return prepare_paged_generator(request)
    conversion = CONVERSIONS[request.recipe]
    assert conversion.generator_numerics is not None  # or the runtime would have refused it
    numerics = conversion.generator_numerics(request.options)
    torch.set_num_threads(request.threads)
    return_freed_memory()
    model: Any = load_pretrained(request.checkpoint, "AutoModelForCausalLM", torch.float32)
    fused = fuse(model, numerics, request.calibration, find_beside(request, model))
    del model
    release_freed_memory()
    write_decoder(fused, request.folder)
    num_checked = _most_checked(fused)
    decoder = TorchDecoder(
        fused,
        numerics.dtype,
        numerics.cache_dtype,
        num_slots=1,
        slot_tokens=num_checked,
        threads=request.threads,
    )
    _check_opened(request, _probe(decoder, fused.vocabulary), fused.vocabulary)
    return Prepared(footprint.weights_bytes(fused), (_where_weights_lie(fused),))


def _most_checked(model: FusedModel) -> int:
    """As many tokens as are compared, or as the model can have."""
    limits = [CHECKED_TOKENS]
    if model.window is not None:
        limits.append(model.window)
    if model.positions is not None:
        limits.append(len(model.positions))
    return min(limits)


def _check_opened(request: PrepareRequest, wanted: Logits, vocabulary: int) -> None:
    """Open what was written, as a replica does, and compare to the last bit.

    Raises:
        RuntimeError: It answers otherwise; that cannot be, and must not be served.
    """
    opened = open_decoder(
        OpenGeneratorRequest(
            folder=request.folder,
            recipe=request.recipe,
            options=request.options,
            device=request.device,
            threads=request.threads,
            cores=UnsharedCores(request.threads),
            max_running=1,
            max_waiting=0,
            max_tokens=len(wanted),
        )
    )
    if not np.array_equal(_probe(opened, vocabulary), wanted, equal_nan=True):
        raise RuntimeError("the generator that was written answers otherwise than it was made")


def _probe(decoder: Decoder, vocabulary: int) -> Logits:
    """Logits of as many tokens as fit: many at once, then a few one by one."""
    tokens = [token % vocabulary for token in range(decoder.slot_tokens)]
    at_once = tokens[: max(1, len(tokens) - SINGLE_TOKENS)]
    rows = [decoder.step([Segment(0, 0, at_once, len(at_once))])]
    for place in range(len(at_once), len(tokens)):
        rows.append(decoder.step([Segment(0, place, tokens[place : place + 1])]))
    return np.concatenate(rows)


def _where_weights_lie(model: nn.Module) -> str:
    kernels = [module for module in model.modules() if isinstance(module, KernelModule)]
    copied = sum(module.packed_bytes() for module in kernels)
    mapped = footprint.weights_bytes(model) - copied
    return (
        f"{mapped / 1024**2:.0f} MiB of weights serve from the mapped file, "
        f"{copied / 1024**2:.0f} MiB are packed by each replica for itself"
    )
