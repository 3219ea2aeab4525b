"""The runtime ``openvino``: converted for CPUs and quantized by nncf."""

from __future__ import annotations

from serving.quantized_checkpoints import why_not_kept
from serving.recipes.int4 import Int4Options
from serving.recipes.smoothing import SmoothingOptions
from serving.runtimes.openvino.execution import EXECUTIONS, GENERATOR_EXECUTIONS, why_not_here
from serving.runtimes.openvino.generation.architectures import (
    why_not_architecture,
    why_not_so_long,
    window_of,
)
from serving.runtimes.openvino.sizes import estimate
from serving.seams import (
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

STORED_BITS = (4, 8)
"""Widths of the integers that the plugin multiplies with, and that ``stored`` can so keep."""

INT4_METHODS = ("rtn", "scale-estimation", "awq", "gptq")


def why_not(combination: Combination) -> str | None:
    """Say what is missing for a combination; None if it can be done here."""
    recipes = {**EXECUTIONS, **GENERATOR_EXECUTIONS}
    if combination.recipe not in recipes:
        return f"openvino has no recipe {combination.recipe}; it has {', '.join(recipes)}"
    if combination.kind == "generator":
        reason = _why_not_generated(combination)
        if reason is not None:
            return reason
    options = combination.options
    if isinstance(options, Int4Options) and options.method not in (None, *INT4_METHODS):
        return f"on openvino, the methods of int4 are {', '.join(INT4_METHODS)}, which nncf has"
    if isinstance(options, SmoothingOptions) and options.smooth is not None:
        return "on openvino, nncf smooths as much as it finds right; leave out smooth"
    reason = why_not_here(combination.recipe)
    if reason is None:
        return None
    possible = [recipe for recipe in EXECUTIONS if why_not_here(recipe) is None]
    return f"{reason}; openvino can {', '.join(possible)} here"


def _why_not_generated(combination: Combination) -> str | None:
    if combination.recipe == "stored":
        reason = why_not_kept(combination.config, STORED_BITS)
        if reason is not None:
            return f"on openvino, stored keeps the integers of quantized checkpoints; {reason}"
    architecture = combination.config.get("model_type")
    if architecture is None:
        return None
    reason = why_not_architecture(architecture)
    if reason is None and combination.max_tokens is not None:
        reason = why_not_so_long(window_of(combination.config), combination.max_tokens)
    return reason


def prepare(request: PrepareRequest) -> Prepared:
    """Make an artifact of an encoder or a generator."""
    if request.kind == "generator":
        from serving.runtimes.openvino.generation.preparing import prepare_generator

        return prepare_generator(request)
    from serving.runtimes.openvino import preparing

    return preparing.prepare(request)


def open_encoder(request: OpenRequest) -> EncoderEngine:
    """Make an encoder from an artifact."""
    from serving.runtimes.openvino import opening

    return opening.open_encoder(request)


def open_generator(request: OpenGeneratorRequest) -> GeneratorEngine:
    """Make a generator from an artifact."""
    from serving.runtimes.openvino.generation import opening

    return opening.open_generator(request)


def open_decoder(request: OpenGeneratorRequest) -> Decoder:
    """Open what a generator steps, alone."""
    from serving.runtimes.openvino.generation import opening

    return opening.open_decoder(request)


RUNTIME = Runtime(
    summary="OpenVINO, for the CPU; its replicas are small",
    packages=("openvino",),
    preparing_packages=("nncf", "torch", "transformers"),
    extra="openvino",
    devices=("cpu",),
    why_not=why_not,
    estimate=estimate,
    prepare=prepare,
    open_encoder=open_encoder,
    open_generator=open_generator,
    open_decoder=open_decoder,
    kv_caches=("float", "int8"),
)
