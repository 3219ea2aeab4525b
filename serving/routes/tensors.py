"""Tensors of the Open Inference Protocol as JSON; which a model has, its task says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from serving.errors import InvalidField
from serving.routes.schemas import Body, Text
from serving.seams import Input, Outcome, Tensors, TensorSpec


class InputTensor(Body):
    """One text per element."""

    name: Text
    shape: list[int] = Field(min_length=1, max_length=2)
    datatype: Literal["BYTES"]
    data: list[Text] | list[list[Text]]

    def read(self, place: str) -> tuple[str, ...]:
        """The texts, with the declared shape checked.

        Args:
            place: Where the tensor stands in the request, for messages.

        Raises:
            InvalidField: There is no text, or the shape does not fit the data.
        """
        texts = tuple(
            text for row in self.data for text in ([row] if isinstance(row, str) else row)
        )
        if math.prod(self.shape) != len(texts) or self.shape[1:] not in ([], [1]):
            raise InvalidField(
                f"{place}.shape {self.shape} does not fit {len(texts)} texts; "
                f"expected [{len(texts)}]",
                param="inputs",
            )
        if not texts:
            raise InvalidField(f"{place}.data: at least one text is needed", param="inputs")
        return texts


def read_inputs(tensors: Tensors, given: Sequence[InputTensor]) -> tuple[Input, ...]:
    """Make a task's inputs of the tensors of a request.

    Raises:
        InvalidField: They are not those of the task, or a shape does not fit its data.
    """
    names = [tensor.name for tensor in given]
    known = [spec.name for spec in tensors.inputs]
    if sorted(names) != sorted(known):
        raise InvalidField(
            f"inputs: {', '.join(names)}; expected {', '.join(known)}, each once", param="inputs"
        )
    texts = {tensor.name: tensor.read(f"inputs[{number}]") for number, tensor in enumerate(given)}
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
    tensors: Tensors, outcome: Outcome, wanted: Sequence[str]
) -> list[dict[str, Any]]:
    """Write the tensors of an answer: the wanted ones, or all of them if none is named."""
    values = tensors.to_outputs(outcome)
    return [
        _tensor(spec, values[spec.name])
        for spec in tensors.outputs
        if not wanted or spec.name in wanted
    ]


def _tensor(spec: TensorSpec, values: Any) -> dict[str, Any]:
    flat = values.ravel() if isinstance(values, np.ndarray) else values
    return {
        "name": spec.name,
        "datatype": spec.datatype,
        "shape": list(np.shape(values)),
        "data": flat,
    }
