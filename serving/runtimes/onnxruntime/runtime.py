"""The runtime ``onnxruntime``: graphs made by torch's exporter, on the CPU."""

from __future__ import annotations

from serving.recipes.smoothing import SmoothingOptions
from serving.runtimes.onnxruntime.sizes import estimate
from serving.seams import (
    Combination,
    EncoderEngine,
    OpenRequest,
    Prepared,
    PrepareRequest,
    Runtime,
)

RECIPES_HERE = ("fp32", "int8-dynamic", "int8-static")


def why_not(combination: Combination) -> str | None:
    """Say what is missing for a combination; None if it can be done here."""
    if combination.recipe not in RECIPES_HERE:
        return f"onnxruntime has no recipe {combination.recipe}; it has {', '.join(RECIPES_HERE)}"
    if combination.kind != "encoder":
        return "onnxruntime makes encoders only"
    options = combination.options
    if isinstance(options, SmoothingOptions) and options.smooth is not None:
        return "onnxruntime smooths int8-static at strengths of its own; leave out smooth"
    return None


def prepare(request: PrepareRequest) -> Prepared:
    """Make an artifact of an encoder."""
    from serving.runtimes.onnxruntime.preparing import prepare_encoder

    return prepare_encoder(request)


def open_encoder(request: OpenRequest) -> EncoderEngine:
    """Make an encoder from an artifact."""
    from serving.runtimes.onnxruntime import opening

    return opening.open_encoder(request)


RUNTIME = Runtime(
    summary="ONNX Runtime, with torch's ONNX exporter",
    packages=("onnxruntime",),
    preparing_packages=("onnx", "onnxscript", "torch", "transformers"),
    extra="onnxruntime",
    devices=("cpu",),
    why_not=why_not,
    estimate=estimate,
    prepare=prepare,
    open_encoder=open_encoder,
)
