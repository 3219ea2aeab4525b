"""Open a generator of its artifact, on the CPU: a fused model behind slots.

Imports neither transformers nor torchao: a replica needs none of them.
"""

from __future__ import annotations

import torch

from serving.errors import ConfigError
from serving.generator import SlotGenerator
from serving.machine.process_memory import (
    keep_freed_memory,
    release_freed_memory,
    return_freed_memory,
)
from serving.runtimes.torch.conversions import CONVERSIONS
from serving.runtimes.torch.decoder.kept_kernels import bound_kept_kernels
from serving.runtimes.torch.decoder.stored_decoder import read_decoder
from serving.runtimes.torch.decoder.torch_decoder import TorchDecoder
from serving.seams import Decoder, GeneratorEngine, OpenGeneratorRequest


def open_generator(request: OpenGeneratorRequest) -> GeneratorEngine:
    """Start the generator that ``preparing.prepare_generator`` wrote; on a GPU, the paged one.

    Embedding tables, int4 weights and bf16 ones that are widened at each call serve from where the
    file is mapped; weights that oneDNN packs into a layout of its own are copies of this process.

    Raises:
        ConfigError: This machine cannot run it.
    """
    if request.device == "cuda":
        from serving.runtimes.torch.cuda.opening import open_paged_generator

        return open_paged_generator(request)
    return SlotGenerator(
        lambda: open_decoder(request),
        request.cores,
        request.max_waiting,
        stuck_after_s=request.stuck_after_s,
    )


def open_decoder(request: OpenGeneratorRequest) -> Decoder:
    """Open the model alone, in the thread that will run it; raises as its caller says."""
    conversion = CONVERSIONS[request.recipe]
    assert conversion.generator_numerics is not None  # or the runtime would have refused it
    numerics = conversion.generator_numerics(request.options)
    torch.set_num_threads(request.threads)
    bound_kept_kernels(request.max_running)
    return_freed_memory()
    model = read_decoder(request.folder, conversion.kernels(), numerics.tied_head)
    if model.window is not None and request.max_tokens > model.window:
        raise ConfigError(
            f"layers of this model see the latest {model.window} tokens, and sequences may have "
            f"{request.max_tokens}; give the model max_tokens of {model.window} or fewer"
        )
    release_freed_memory()
    keep_freed_memory()
    return TorchDecoder(
        model,
        numerics.dtype,
        numerics.cache_dtype,
        num_slots=request.max_running,
        slot_tokens=request.max_tokens,
        threads=request.threads,
    )
