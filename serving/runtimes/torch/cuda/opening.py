"""Open a generator on a GPU: a transformers model, converted there and batched by transformers."""

from __future__ import annotations

import torch

from serving.machine.process_memory import release_freed_memory
from serving.runtimes.torch.conversions import CONVERSIONS
from serving.runtimes.torch.cuda.paged_generator import PagedGenerator
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Checkpoint, GeneratorEngine, OpenGeneratorRequest


def open_paged_generator(request: OpenGeneratorRequest) -> GeneratorEngine:
    """Read what ``preparing.prepare_paged_generator`` wrote, convert it and start it.

    Raises:
        ConfigError: transformers cannot batch this model continuously, or the cache does not fit.
    """
    move_to_gpu = CONVERSIONS[request.recipe].move_to_gpu
    assert move_to_gpu is not None  # or the runtime would have refused it
    model = load_pretrained(Checkpoint(request.folder), "AutoModelForCausalLM", torch.float32)
    model = move_to_gpu(model, request.options, request.device)
    release_freed_memory()
    return PagedGenerator(model, request)
