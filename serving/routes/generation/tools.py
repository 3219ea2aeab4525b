"""``tools`` and ``tool_choice``: functions that a chat may have called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from serving.errors import InvalidField
from serving.generator.json_schema import ANY_OBJECT, check_schema
from serving.routes.json_nesting import MAX_NESTING, is_too_deep
from serving.routes.schemas import Body, JsonObject, check_writable
from serving.seams import Tool, ToolCall, ToolUse

MAX_TOOLS = 128
"""As OpenAI has it."""

FunctionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class FunctionBody(Body):
    """A function that may be called.

    Attributes:
        name: Of the function.
        description: For the model.
        parameters: JSON schema of the arguments; left out, there are none.
        strict: Whether the arguments of every call follow the schema. They do so anyway where a
            call is required.
    """

    name: FunctionName
    description: str | None = None
    parameters: JsonObject = Field(default_factory=dict)
    strict: bool | None = None

    @field_validator("parameters")
    @classmethod
    def _are_an_object(cls, value: dict[str, Any]) -> dict[str, Any]:
        if value.get("type", "object") != "object":
            raise ValueError("arguments are an object, so its type has to be 'object'")
        return value


class ToolBody(Body):
    """One of ``tools``."""

    type: Literal["function"]
    function: FunctionBody
    cache_control: dict[str, Any] | None = None

    def to_tool(self, place: str, is_held: bool) -> Tool:
        """The same for the backend.

        Args:
            place: Where it stands, for messages.
            is_held: Whether its calls follow the schema, whatever ``strict`` says.

        Raises:
            InvalidField: They shall, and a part of the schema would be ignored.
        """
        function = self.function
        parameters = {**ANY_OBJECT, **function.parameters}
        if is_held or function.strict:
            check_schema(parameters, f"{place}.function.parameters")
        shown = {"name": function.name, "description": function.description}
        shown = {name: value for name, value in shown.items() if value is not None}
        definition = {"type": "function", "function": {**shown, "parameters": parameters}}
        return Tool(function.name, definition, parameters, bool(function.strict))


class NamedFunction(Body):
    """Names a function."""

    name: str


class NamedTool(Body):
    """The form of ``tool_choice`` that names the function to be called."""

    type: Literal["function"]
    function: NamedFunction


Tools = Annotated[list[ToolBody], Field(max_length=MAX_TOOLS)]
ToolChoice = Literal["none", "auto", "required"] | NamedTool


def to_tool_use(
    tools: list[ToolBody], choice: ToolChoice | None, is_parallel: bool
) -> ToolUse | None:
    """What the backend is asked; None if no tool may be called.

    Raises:
        InvalidField: Two tools have one name, the chosen one is not there, or a part of a schema
            would be ignored.
    """
    named = choice.function.name if isinstance(choice, NamedTool) else None
    must_call = choice == "required" or named is not None
    if choice == "none" or (not tools and not must_call):
        return None
    names = [tool.function.name for tool in tools]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InvalidField(f"tools[{place}].function.name: {name!r} is given twice", "tools")
    if not names or (named is not None and named not in names):
        wanted = "a call is required" if named is None else f"{named!r} is to be called"
        there = ", ".join(names) or "none"
        raise InvalidField(f"tool_choice: {wanted}; the tools are: {there}", param="tool_choice")
    asked = tuple(
        tool.to_tool(f"tools[{place}]", must_call and named in (None, tool.function.name))
        for place, tool in enumerate(tools)
    )
    return ToolUse(asked, must_call, named, is_parallel and named is None)


class CalledFunction(Body):
    """What a model asked for; ``arguments`` are a JSON object as text.

    ``parsed_arguments`` is what OpenAI's client has read out of them.
    """

    name: str
    arguments: str
    parsed_arguments: Any = None


class ToolCallBody(Body):
    """A call in the history, as a client got it; ``index`` is left over from a stream."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None

    def to_call(self, place: str) -> ToolCall:
        """The same for the backend.

        Raises:
            InvalidField: The arguments are no JSON object, nested too deep, or have half of a
                character.
        """
        return ToolCall(self.id, self.function.name, self._arguments(place))

    def _arguments(self, place: str) -> Mapping[str, Any]:
        text = self.function.arguments
        if is_too_deep(text.encode()):
            raise InvalidField(
                f"{place}.function.arguments: nested more than {MAX_NESTING} deep", param="messages"
            )
        try:
            arguments = json.loads(text) if text.strip() else {}
        except ValueError as error:
            arguments = error
        if not isinstance(arguments, dict):
            raise InvalidField(
                f"{place}.function.arguments: no JSON object, but {text[:50]!r}", param="messages"
            )
        try:
            check_writable(arguments)
        except ValueError as error:
            raise InvalidField(f"{place}.function.arguments: {error}", param="messages") from None
        return arguments
