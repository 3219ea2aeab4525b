"""Make the artifact of a generator on a GPU: the checkpoint in floats, as transformers saves it."""

from __future__ import annotations

from typing import Any

import torch

from serving.errors import ConfigError
from serving.runtimes.torch import footprint
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Prepared, PrepareRequest


def prepare_paged_generator(request: PrepareRequest) -> Prepared:
    """Write what ``opening.open_paged_generator`` reads; its recipe is applied on the GPU.

    Weights are laid out for the GPU that quantizes them, which takes it seconds, so the artifact
    has the numbers before that.

    Raises:
        ConfigError: The model brings code of its own, which an artifact does not hold.
        SourceError: The checkpoint lacks weights.
    """
    model: Any = load_pretrained(request.checkpoint, "AutoModelForCausalLM", torch.float32)
    if type(model).__module__.startswith("transformers_modules"):  # where it puts foreign code
        raise ConfigError(
            f"{request.checkpoint.folder}: a generator with Python code of its own cannot be "
            "prepared for a GPU; serve it on the CPU, or convert it to one of transformers' models"
        )
    # Expanded by now; of a GGUF file it would still say otherwise.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(request.folder)
    return Prepared(
        footprint.weights_bytes(model),
        ("float32 weights; the recipe is applied when a replica opens them",),
    )
