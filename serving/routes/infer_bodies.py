"""Bodies of ``POST /v2/models/{model}/infer``: JSON, and tensors that may follow it in binary.

Clients of the protocol send them without a JSON content type, and by the binary tensor extension
the JSON is only as long as the header Inference-Header-Content-Length says. So they are read here.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError

from serving.errors import InvalidField, Malformed
from serving.routes.json_nesting import check_nesting
from serving.routes.schemas import Body, EmbeddingOptions, Slo, Text
from serving.routes.tensors import InputTensor

JSON_LENGTH = "Inference-Header-Content-Length"
"""Header of a request or an answer whose JSON is followed by binary tensors: bytes of the JSON."""


class Parameters(EmbeddingOptions, Slo):
    """Parameters of a request: as the fields of the same names in the OpenAI routes.

    The protocol's parameters are flat, so the limits of ``slo`` stand among them.

    Attributes:
        truncate: See ``InferenceBody``.
        binary_data_output: Send the outputs in binary that do not say otherwise.
        priority: Accepted since Triton's clients send it; no answer depends on it. Likewise
            ``timeout``.
    """

    truncate: bool = False
    binary_data_output: bool = False
    priority: int | None = None
    timeout: int | None = None


class OutputParameters(Body):
    """``binary_data``: whether the output is sent in binary; left out, as the request says.

    ``content_type`` is MLServer's, and texts are the only thing that there is.
    """

    binary_data: bool | None = None
    content_type: Literal["str"] | None = None


class RequestedOutput(Body):
    """An output tensor that the client wants; all of them if none is named."""

    name: Text
    parameters: OutputParameters = OutputParameters()


class InferBody(Body):
    """The JSON of a request.

    Attributes:
        id: Comes back with the answer.
        parameters: Of the request.
        inputs: Tensors, with their data or with its size in binary.
        outputs: Those that are wanted; all if none is named.
    """

    id: Text | None = None
    parameters: Parameters = Parameters()
    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[RequestedOutput] = Field(default_factory=list)

    def is_binary(self, output: str) -> bool:
        """Whether an output shall be sent in binary."""
        for wanted in self.outputs:
            if wanted.name == output and wanted.parameters.binary_data is not None:
                return wanted.parameters.binary_data
        return self.parameters.binary_data_output


async def read_infer_body(request: Request) -> tuple[InferBody, bytes]:
    """Read a request's JSON, and what follows it.

    Raises:
        Malformed: There is no JSON object of the length that the header says, or it is nested too
            deep.
        RequestValidationError: It is not an ``InferBody``.
    """
    body = await request.body()
    length = _json_length(request, len(body))
    content = read_json_object(body[:length])
    try:
        return InferBody.model_validate(content), body[length:]
    except ValidationError as error:
        raise RequestValidationError(
            [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
        ) from None


def read_json_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object, whatever its content type.

    Raises:
        Malformed: It is none, or nested too deep.
    """
    check_nesting(body)
    try:
        content = json.loads(body)
    except ValueError as error:
        raise Malformed(f"the body is not JSON: {getattr(error, 'msg', error)}") from None
    if not isinstance(content, dict):
        raise Malformed("expected a JSON object")
    return content


def split_binary(inputs: list[InputTensor], binary: bytes) -> list[bytes | None]:
    """Cut what follows the JSON into the tensors, in their order; None for one in the JSON.

    Raises:
        InvalidField: The sizes do not add up.
    """
    parts: list[bytes | None] = []
    start = 0
    for tensor in inputs:
        size = tensor.parameters.binary_data_size
        parts.append(None if size is None else binary[start : start + size])
        start += size or 0
    if start != len(binary):
        raise InvalidField(
            f"{len(binary)} bytes follow the JSON, but binary_data_size of the inputs adds up to "
            f"{start}",
            param="inputs",
        )
    return parts


def _json_length(request: Request, size: int) -> int:
    given = request.headers.get(JSON_LENGTH)
    if given is None:
        return size
    if not (given.isascii() and given.isdigit() and len(given) < 20 and int(given) <= size):
        raise Malformed(
            f"header {JSON_LENGTH} is {given!r}; expected how many of the body's {size} bytes are "
            "JSON",
            param=JSON_LENGTH,
        )
    return int(given)


def infer_schema() -> dict[str, Any]:
    """The request body for the OpenAPI document, which FastAPI does not see."""
    schema = InferBody.model_json_schema()
    inlined = _inline(schema, schema.pop("$defs"))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": inlined}}}}


def _inline(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inline(definitions[node["$ref"].rpartition("/")[2]], definitions)
    return {name: _inline(value, definitions) for name, value in node.items()}
