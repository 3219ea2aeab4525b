"""The runtime ``torch``: every recipe in torch's own kernels, on CPU and CUDA."""

from __future__ import annotations

from pydantic import BaseModel

from serving.recipes.int4 import Int4Options
from serving.recipes.smoothing import SmoothingOptions
from serving.runtimes.torch.conversions import CONVERSIONS
from serving.runtimes.torch.decoder.architectures import (
    why_not_architecture,
    why_not_so_long,
)
from serving.runtimes.torch.encoder_architectures import why_not_encoder
from serving.runtimes.torch.sizes import estimate
from serving.seams import (
    Combination,
    Decoder,
    DeviceName,
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
    if combination.device == "cuda" and conversion.move_to_gpu is None:
        return f"on torch, {combination.recipe} runs on the CPU only"
    if combination.device == "cpu" and makes_kind[combination.kind] is None:
        if any(makes_kind.values()):
            return f"on torch, {combination.recipe} makes no {combination.kind}s"
        return f"on torch, {combination.recipe} runs on CUDA only"
    if combination.kind == "encoder":
        reason = why_not_encoder(combination.recipe, combination.device, combination.config)
        if reason is not None:
            return reason
    if (combination.kind, combination.device) == ("generator", "cpu"):
        reason = _why_not_generated(combination)
        if reason is not None:
            return reason
    if (combination.kind, combination.device) == ("generator", "cuda"):
        reason = _why_not_rounded(combination)
        if reason is not None:
            return reason
    if combination.options is not None:
        reason = _why_not_options(combination.options, combination.device)
        if reason is not None:
            return reason
    if combination.adapter == "beside":
        reason = _why_not_beside(combination)
        if reason is not None:
            return reason
    return conversion.why_not(combination.device)


def _why_not_beside(combination: Combination) -> str | None:
    having = [name for name in CONVERSIONS if CONVERSIONS[name].adapted_linear is not None]
    if combination.recipe not in having:
        return f"on torch, an adapter stays beside {', '.join(having)}; with others it is merged"
    if combination.device == "cuda":
        return "on CUDA, an adapter is merged"
    return None


INT4_METHODS = ("rtn", "hqq", "awq", "gptq")


def _why_not_options(options: BaseModel, device: DeviceName) -> str | None:
    if isinstance(options, SmoothingOptions) and options.smooth is not None and device == "cuda":
        return "on CUDA, activations are rounded as they come; leave out smooth"
    return _why_not_int4(options, device) if isinstance(options, Int4Options) else None


def _why_not_int4(options: Int4Options, device: DeviceName) -> str | None:
    """Say which ways to round there are here, and of which grids."""
    if device == "cuda" and (options.method, options.symmetric) != (None, None):
        return (
            "on CUDA, int4 has one way to round, by scale and offset for the least error of each "
            "group; leave out method and symmetric"
        )
    if options.method not in (None, *INT4_METHODS):
        return f"on torch, the methods of int4 are {', '.join(INT4_METHODS)}; leave it out for ours"
    if options.symmetric and options.method in (None, "hqq"):
        way = "its own way to round" if options.method is None else "hqq"
        return f"on torch, {way} chooses offsets; symmetric goes with rtn, awq and gptq"
    return None


def _why_not_generated(combination: Combination) -> str | None:
    architecture = combination.config.get("model_type")
    if architecture is None:
        return None
    reason = why_not_architecture(architecture)
    if reason is None and combination.max_tokens is not None:
        reason = why_not_so_long(combination.config, combination.max_tokens)
    return reason


ROUNDS_LINEAR_LAYERS = ("int8-dynamic", "fp8", "int4")
"""Recipes that replace linear layers on a GPU, and leave other parameters in bfloat16."""

_NUM_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Names in ``config.json``; families differ, and some models have one network under such a name."""


_OF_CONV1D = ("gpt2", "openai-gpt")
"""Models whose layers transformers makes of its ``Conv1D``, which is no linear layer."""


def _why_not_rounded(combination: Combination) -> str | None:
    """Say which models would have little more than a recipe's name."""
    if combination.recipe not in ROUNDS_LINEAR_LAYERS:
        return None
    config = combination.config.get("text_config") or combination.config
    if any(config.get(name) not in (None, 0, 1) for name in _NUM_EXPERTS):
        return (
            f"on CUDA, {combination.recipe} leaves experts in bfloat16, which are nearly all "
            "weights of this checkpoint, a mixture of experts"
        )
    if config.get("model_type") in _OF_CONV1D:
        return (
            f"on CUDA, {combination.recipe} leaves the layers of {config['model_type']} in "
            "bfloat16, which transformers makes of Conv1D and not of linear layers"
        )
    return None


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


def open_decoder(request: OpenGeneratorRequest) -> Decoder:
    """Open what a generator steps, alone."""
    from serving.runtimes.torch.decoder import opening

    return opening.open_decoder(request)


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
    open_decoder=open_decoder,
    adapter_places=("merged", "beside"),
    preload=("serving.runtimes.torch.opening", "serving.runtimes.torch.decoder.opening"),
)
