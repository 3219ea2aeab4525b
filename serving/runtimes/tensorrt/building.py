"""From an ONNX graph to an engine: TensorRT's builder (its Python API of 10.1 to 11.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorrt as trt

from serving.errors import ConfigError

TYPICAL_ROWS, TYPICAL_TOKENS = 8, 128
"""The shape for which kernels are chosen; they run at every other."""

WORKSPACE_BYTES = 2**30
"""Most memory that a kernel may ask for beside its inputs and outputs."""


def build_engine(graph: Path, inputs: Sequence[str], max_rows: int, max_tokens: int) -> bytes:
    """Build an engine that computes in the types that the graph states, on this GPU.

    Args:
        graph: With its numbers in a file beside it.
        inputs: Names of its inputs, each (rows, tokens).
        max_rows: Most rows of a pass.
        max_tokens: Most tokens of a row.

    Raises:
        ConfigError: TensorRT cannot express the graph, or finds no kernels for it.
    """
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # 11 has no other networks, and takes the flag as 10 does.
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph.read_bytes(), str(graph)):
        reasons = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise ConfigError(f"TensorRT cannot read its graph: {'; '.join(reasons[:3])}")
    profile = builder.create_optimization_profile()
    for name in inputs:
        typical = (min(TYPICAL_ROWS, max_rows), min(TYPICAL_TOKENS, max_tokens))
        profile.set_shape(name, (1, 1), typical, (max_rows, max_tokens))
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    # Else products of float32 are taken with ten bits of mantissa.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ConfigError("TensorRT finds no kernels for its graph; its log says which")
    return bytes(engine)
