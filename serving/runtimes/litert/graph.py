"""Writes LiteRT's file format (TFL3): tensors, operations on them, constants behind both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

TOKENS = -1
"""Stands for the number of tokens in a shape: known when an input comes."""

ALIGNMENT = 64
"""Of each constant in the file, in bytes, so that kernels read it where it is mapped."""

_MAGIC = b"TFL3"

_VERSIONS = {"FULLY_CONNECTED": 12, "EMBEDDING_LOOKUP": 4, "DEQUANTIZE": 3, "QUANTIZE": 2}
"""Versions of operations that have learnt the number types used here; 1 of all others."""

_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.float16): schema.TensorType.FLOAT16,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
}


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph.

    Attributes:
        index: Its number.
        shape: Its sizes, ``TOKENS`` for one that is not known yet.
    """

    index: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scales:
    """What 8-bit integers stand for: ``(number - zero) * scale``.

    Attributes:
        scale: float32 (1,), or one for each entry of the first dimension.
        zero: The number that stands for 0.
    """

    scale: np.ndarray
    zero: int = 0


class Graph:
    """A graph with one signature, built operation by operation."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[str, int] = {}
        self._constants: list[np.ndarray] = []
        self._scales_bytes = 0
        self._inputs: dict[str, Value] = {}

    def input(self, name: str) -> Value:
        """Add an input: int32 (tokens,)."""
        value = self._add_tensor(name, (TOKENS,), np.int32)
        self._inputs[name] = value
        return value

    def constant(self, name: str, array: np.ndarray, scales: Scales | None = None) -> Value:
        """Add a constant."""
        self._constants.append(np.ascontiguousarray(array))
        self._scales_bytes += 0 if scales is None else scales.scale.nbytes
        # Buffer 0 is that of all tensors which are no constants.
        buffer = len(self._constants)
        return self._add_tensor(name, array.shape, array.dtype, scales, buffer)

    def apply(
        self,
        operation: str,
        inputs: Sequence[Value],
        shape: tuple[int, ...],
        options: Any = None,
        number: Any = np.float32,
        scales: Scales | None = None,
    ) -> Value:
        """Add an operation; returns its result.

        Args:
            operation: Its name in the format, e.g. ``FULLY_CONNECTED``.
            inputs: In the operation's order.
            shape: Of the result.
            options: The format's object of them, if the operation has any.
            number: Type of the result's numbers; ``scales`` if these are 8-bit integers.
        """
        result = self._add_tensor(
            f"{operation.lower()}_{len(self._tensors)}", shape, number, scales
        )
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(operation, len(self._codes))
        operator.inputs = [value.index for value in inputs]
        operator.outputs = [result.index]
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self._operators.append(operator)
        return result

    @property
    def weights_bytes(self) -> int:
        """Size of all constants together, with their scales."""
        return sum(constant.nbytes for constant in self._constants) + self._scales_bytes

    def write(self, file: Path, outputs: Mapping[str, Value]) -> None:
        """Write the file: the graph, then the constants, each aligned."""
        head = self._packed(outputs, 0)
        # The size of the first part does not depend on the places that it names.
        places, end = [], len(head)
        for constant in self._constants:
            start = _aligned(end)
            places.append(start)
            end = start + constant.nbytes
        with file.open("wb") as written:
            written.write(self._packed(outputs, places))
            for place, constant in zip(places, self._constants, strict=True):
                written.write(bytes(place - written.tell()))
                written.write(constant.data)

    def _packed(self, outputs: Mapping[str, Value], places: Sequence[int] | int) -> bytes:
        buffers = [schema.BufferT()]
        for number, constant in enumerate(self._constants):
            buffer = schema.BufferT()
            # What is left at 0 would not be written, and 1 means "nowhere".
            buffer.offset = 2 if isinstance(places, int) else places[number]
            buffer.size = constant.nbytes
            buffers.append(buffer)
        subgraph = schema.SubGraphT()
        subgraph.tensors, subgraph.operators = self._tensors, self._operators
        subgraph.inputs = [value.index for value in self._inputs.values()]
        subgraph.outputs = [value.index for value in outputs.values()]
        subgraph.name = "main"
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs = [_named(name, value) for name, value in self._inputs.items()]
        signature.outputs = [_named(name, value) for name, value in outputs.items()]
        model = schema.ModelT()
        model.version = 3
        model.operatorCodes = [_operator_code(name) for name in self._codes]
        model.subgraphs, model.buffers, model.signatureDefs = [subgraph], buffers, [signature]
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), file_identifier=_MAGIC)
        return bytes(builder.Output())

    def _add_tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        number: Any,
        scales: Scales | None = None,
        buffer: int = 0,
    ) -> Value:
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = name, _TYPES[np.dtype(number)], buffer
        tensor.shape = [1 if size == TOKENS else size for size in shape]
        tensor.hasRank = True
        if TOKENS in shape:
            tensor.shapeSignature = list(shape)
        if scales is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = scales.scale.astype(np.float32)
            tensor.quantization.zeroPoint = np.full(scales.scale.shape, scales.zero, np.int64)
        self._tensors.append(tensor)
        return Value(len(self._tensors) - 1, shape)


def _operator_code(name: str) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    # Where readers of before 2020 look; larger numbers did not fit.
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = _VERSIONS.get(name, 1)
    return code


def _named(name: str, value: Value) -> Any:
    named = schema.TensorMapT()
    named.name, named.tensorIndex = name, value.index
    return named


def _aligned(place: int) -> int:
    return -(-place // ALIGNMENT) * ALIGNMENT
