"""The runtime ``openvino``: converted for CPUs and quantized by nncf."""

from __future__ import annotations

from serving.runtimes.openvino.execution import EXECUTIONS, why_not_here
from serving.runtimes.openvino.generation.architectures import (
    why_not_architecture,
    why_not_so_long,
    window_of,
)
from serving.runtimes.openvino.sizes import estimate
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
    if combination.recipe not in EXECUTIONS:
        return f"openvino has no recipe {combination.recipe}; it has {', '.join(EXECUTIONS)}"
    if combination.kind == "generator":
        reason = _why_not_generated(combination)
        if reason is not None:
            return reason
    reason = why_not_here(combination.recipe)
    if reason is None:
        return None
    possible = [recipe for recipe in EXECUTIONS if why_not_here(recipe) is None]
    return f"{reason}; openvino can {', '.join(possible)} here"


def _why_not_generated(combination: Combination) -> str | None:
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
    kv_caches=("float", "int8"),
)
