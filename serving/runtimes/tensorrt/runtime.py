"""The runtime ``tensorrt``: engines that TensorRT builds of ONNX graphs, on CUDA. Never run yet."""

from __future__ import annotations

from serving.runtimes.torch.sizes import estimate
from serving.seams import (
    Combination,
    EncoderEngine,
    OpenRequest,
    Prepared,
    PrepareRequest,
    Runtime,
)

RECIPES_HERE = ("fp32", "f16")


def why_not(combination: Combination) -> str | None:
    """Say what is missing for a combination; None if it can be done here."""
    if combination.recipe not in RECIPES_HERE:
        return f"tensorrt has no recipe {combination.recipe}; it has {', '.join(RECIPES_HERE)}"
    if combination.kind != "encoder":
        return "tensorrt makes encoders only"
    return None


def prepare(request: PrepareRequest) -> Prepared:
    """Make an artifact of an encoder."""
    from serving.runtimes.tensorrt.preparing import prepare_encoder

    return prepare_encoder(request)


def open_encoder(request: OpenRequest) -> EncoderEngine:
    """Make an encoder from an artifact."""
    from serving.runtimes.tensorrt import encoder

    return encoder.open_encoder(request)


RUNTIME = Runtime(
    summary="TensorRT, of torch's ONNX export; never run by us",
    packages=("tensorrt", "torch"),
    preparing_packages=("onnx", "onnxscript", "transformers"),
    extra=None,
    devices=("cuda",),
    why_not=why_not,
    estimate=estimate,
    prepare=prepare,
    open_encoder=open_encoder,
)
