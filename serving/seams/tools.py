"""Functions of a client that a model may ask to have called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that may be called.

    Attributes:
        name: Letters, digits, ``_`` and ``-``.
        definition: What the chat template sees: OpenAI's ``{"type": "function", "function": …}``.
        parameters: JSON schema of its arguments, which are an object.
        is_strict: Whether the arguments of every call follow the schema.
    """

    name: str
    definition: Mapping[str, Any]
    parameters: Mapping[str, Any]
    is_strict: bool = False


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What a request says of tools.

    Attributes:
        tools: At least one.
        must_call: Whether an answer is a call and nothing else. Then the arguments follow the
            schemas of all tools.
        only: Name of the only one that may be called; None leaves the choice.
        is_parallel: Whether an answer may have several calls.
    """

    tools: tuple[Tool, ...]
    must_call: bool = False
    only: str | None = None
    is_parallel: bool = True

    @property
    def callable(self) -> tuple[Tool, ...]:
        """Those that may be called."""
        return tuple(tool for tool in self.tools if self.only in (None, tool.name))


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as it stands in a chat.

    Attributes:
        id: By which its result refers to it.
        name: Of the function.
        arguments: A JSON object.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a call that a model writes.

    Attributes:
        index: Which call of its choice.
        id: With the first piece alone, as ``name`` is; None with the others.
        name: See ``id``.
        arguments: What is new of the JSON text.
    """

    index: int
    id: str | None
    name: str | None
    arguments: str
