"""The runtime ``tvm``: graphs of BERT-like models, compiled ahead by Apache TVM for the CPU."""

from __future__ import annotations

from serving.runtimes.torch.bert_architectures import why_not_bert
from serving.runtimes.tvm.sizes import estimate
from serving.runtimes.tvm.target import target_here
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
        return f"tvm has no recipe {combination.recipe}; it has {', '.join(RECIPES_HERE)}"
    if combination.kind != "encoder":
        return "tvm makes encoders only"
    if combination.recipe == "f16" and not target_here()[1]:
        return "on tvm, f16 is for CPUs with AVX2 and F16C"
    return why_not_bert(combination.config, "tvm")


def prepare(request: PrepareRequest) -> Prepared:
    """Make an artifact of an encoder."""
    from serving.runtimes.tvm.preparing import prepare_encoder

    return prepare_encoder(request)


def open_encoder(request: OpenRequest) -> EncoderEngine:
    """Make an encoder from an artifact."""
    from serving.runtimes.tvm import opening

    return opening.open_encoder(request)


RUNTIME = Runtime(
    summary="Apache TVM, compiled ahead with schedules of ours, for BERT-like encoders",
    packages=("apache-tvm", "apache-tvm-ffi"),
    preparing_packages=("torch", "transformers"),
    extra="tvm",
    devices=("cpu",),
    why_not=why_not,
    estimate=estimate,
    prepare=prepare,
    open_encoder=open_encoder,
)
