"""The runtime ``torch``: every recipe in torch's own kernels, on CPU and CUDA."""

from __future__ import annotations

from serving.runtimes.torch.conversions import CONVERSIONS
from serving.runtimes.torch.decoder.architectures import (
    why_not_architecture,
    why_not_so_long,
)
from serving.runtimes.torch.encoder_architectures import why_not_encoder
from serving.runtimes.torch.sizes import estimate
from serving.seams import (
    Combination,
    EncoderEngine,
    GeneratorEngine,
    OpenGeneratorRequest,
    OpenRequest,
    Prepared,
    PrepareRequest,
    Runtime,
)


def why_not(combination: Combination) -> str | None:
    """Say what is missing for a combination; None if it can be done here."""
    if combination.recipe not in CONVERSIONS:
        return f"torch has no recipe {combination.recipe}; it has {', '.join(CONVERSIONS)}"
    conversion = CONVERSIONS[combination.recipe]
    makes_kind = {
        "encoder": conversion.convert_encoder,
        "generator": conversion.generator_numerics,
    }
    if makes_kind[combination.kind] is None:
        return f"on torch, {combination.recipe} makes no {combination.kind}s"
    if combination.device == "cuda" and conversion.move_to_cuda is None:
        return f"on torch, {combination.recipe} runs on the CPU only"
    if combination.kind == "encoder":
        reason = why_not_encoder(combination.recipe, combination.device, combination.config)
        if reason is not None:
            return reason
    if (combination.kind, combination.device) == ("generator", "cpu"):
        reason = _why_not_generated(combination)
        if reason is not None:
            return reason
    return conversion.why_not(combination.device)


def _why_not_generated(combination: Combination) -> str | None:
    architecture = combination.config.get("model_type")
    if architecture is None:
        return None
    reason = why_not_architecture(architecture)
    if reason is None and combination.max_tokens is not None:
        reason = why_not_so_long(combination.config, combination.max_tokens)
    return reason


def prepare(request: PrepareRequest) -> Prepared:
    """Make an artifact of an encoder or a generator."""
    if request.kind == "encoder":
        from serving.runtimes.torch.preparing import prepare_encoder

        return prepare_encoder(request)
    from serving.runtimes.torch.decoder.preparing import prepare_generator

    return prepare_generator(request)


def open_encoder(request: OpenRequest) -> EncoderEngine:
    """Make an encoder from an artifact."""
    from serving.runtimes.torch import opening

    return opening.open_encoder(request)


def open_generator(request: OpenGeneratorRequest) -> GeneratorEngine:
    """Make a generator from an artifact."""
    from serving.runtimes.torch.decoder import opening

    return opening.open_generator(request)


RUNTIME = Runtime(
    summary="PyTorch, with kernels of its own for int8 and int4",
    packages=("torch", "transformers"),
    preparing_packages=(),
    extra=None,
    devices=("cpu", "cuda"),
    why_not=why_not,
    estimate=estimate,
    prepare=prepare,
    open_encoder=open_encoder,
    open_generator=open_generator,
    preload=("serving.runtimes.torch.opening", "serving.runtimes.torch.decoder.opening"),
)
