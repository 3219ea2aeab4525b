"""The runtime ``litert``: graphs written of BERT-like models, run by LiteRT on the CPU."""

from __future__ import annotations

from serving.runtimes.litert.sizes import estimate
from serving.runtimes.torch.bert_architectures import why_not_bert
from serving.seams import (
    Combination,
    EncoderEngine,
    OpenRequest,
    Prepared,
    PrepareRequest,
    Runtime,
)

RECIPES_HERE = ("fp32", "f16", "int8-dynamic", "int8-static")


def why_not(combination: Combination) -> str | None:
    """Say what is missing for a combination; None if it can be done here."""
    if combination.recipe not in RECIPES_HERE:
        return f"litert has no recipe {combination.recipe}; it has {', '.join(RECIPES_HERE)}"
    if combination.kind != "encoder":
        return "litert makes encoders only"
    return why_not_bert(combination.config, "litert")


def prepare(request: PrepareRequest) -> Prepared:
    """Make an artifact of an encoder."""
    from serving.runtimes.litert.preparing import prepare_encoder

    return prepare_encoder(request)


def open_encoder(request: OpenRequest) -> EncoderEngine:
    """Make an encoder from an artifact."""
    from serving.runtimes.litert import opening

    return opening.open_encoder(request)


RUNTIME = Runtime(
    summary="LiteRT (TensorFlow Lite) with XNNPACK, for BERT-like encoders",
    packages=("ai-edge-litert",),
    preparing_packages=("torch", "transformers"),
    extra="litert",
    devices=("cpu",),
    why_not=why_not,
    estimate=estimate,
    prepare=prepare,
    open_encoder=open_encoder,
)
