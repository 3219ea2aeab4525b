"""Tensors of the Open Inference Protocol; which a model has, its task says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from serving.errors import InvalidField
from serving.routes.binary_tensors import read_texts, to_binary
from serving.routes.schemas import Body, Text
from serving.seams import Input, Outcome, Tensors, TensorSpec


class InputParameters(Body):
    """``binary_data_size``: bytes of the tensor's data, if it follows the JSON in binary.

    ``content_type`` is MLServer's, and texts are the only thing that there is.
    """

    binary_data_size: int | None = Field(default=None, ge=0)
    content_type: Literal["str"] | None = None


class InputTensor(Body):
    """One text per element."""

    name: Text
    shape: list[int] = Field(min_length=1, max_length=2)
    datatype: Literal["BYTES"]
    parameters: InputParameters = InputParameters()
    data: list[Text] | list[list[Text]] | None = None

    def read(self, binary: bytes | None, place: str) -> tuple[str, ...]:
        """The texts, with the declared shape checked.

        Args:
            binary: The data that follows the JSON; None if there is none.
            place: Where the tensor stands in the request, for messages.

        Raises:
            InvalidField: There is no text, or the shape does not fit the data.
        """
        if (self.data is None) == (binary is None):
            raise InvalidField(
                f"{place}.data: send it either there or in binary, with its binary_data_size",
                param="inputs",
            )
        data = read_texts(binary, place) if binary is not None else self.data or []
        texts = tuple(text for row in data for text in ([row] if isinstance(row, str) else row))
        if math.prod(self.shape) != len(texts) or self.shape[1:] not in ([], [1]):
            raise InvalidField(
                f"{place}.shape {self.shape} does not fit {len(texts)} texts; "
                f"expected [{len(texts)}]",
                param="inputs",
            )
        if not texts:
            raise InvalidField(f"{place}.data: at least one text is needed", param="inputs")
        return texts


def read_inputs(
    tensors: Tensors, given: Sequence[InputTensor], binaries: Sequence[bytes | None]
) -> tuple[Input, ...]:
    """Make a task's inputs of the tensors of a request.

    Args:
        tensors: What the task takes.
        given: What the request has.
        binaries: The data of each that has it in binary, else None.

    Raises:
        InvalidField: They are not those of the task, or a shape does not fit its data.
    """
    names = [tensor.name for tensor in given]
    known = [spec.name for spec in tensors.inputs]
    if sorted(names) != sorted(known):
        raise InvalidField(
            f"inputs: {', '.join(names)}; expected {', '.join(known)}, each once", param="inputs"
        )
    texts = {
        tensor.name: tensor.read(binary, f"inputs[{number}]")
        for number, (tensor, binary) in enumerate(zip(given, binaries, strict=True))
    }
    return tensors.to_inputs(texts)


def metadata(specs: Sequence[TensorSpec], width: int) -> list[dict[str, Any]]:
    """Describe tensors; ``width`` is that of the answers, -1 while it is not known."""
    return [
        {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": [width if size is None else size for size in spec.shape],
        }
        for spec in specs
    ]


def write_outputs(
    tensors: Tensors, outcome: Outcome, wanted: Sequence[str], is_binary: Callable[[str], bool]
) -> tuple[list[dict[str, Any]], bytes]:
    """Write the tensors of an answer: the wanted ones, or all of them if none is named.

    Returns:
        Their JSON, and what follows it: the data of those that ``is_binary`` names.
    """
    values = tensors.to_outputs(outcome)
    described: list[dict[str, Any]] = []
    binaries: list[bytes] = []
    for spec in tensors.outputs:
        if wanted and spec.name not in wanted:
            continue
        head = _head(spec, values[spec.name])
        if is_binary(spec.name):
            binaries.append(to_binary(values[spec.name], spec.datatype))
            described.append({**head, "parameters": {"binary_data_size": len(binaries[-1])}})
        else:
            described.append({**head, "data": _flat(values[spec.name])})
    return described, b"".join(binaries)


def _head(spec: TensorSpec, values: Any) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(np.shape(values))}


def _flat(values: Any) -> Any:
    return values.ravel() if isinstance(values, np.ndarray) else values
