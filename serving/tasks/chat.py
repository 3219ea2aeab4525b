"""A chat to token ids, with the template of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

from jinja2 import TemplateError

from serving.errors import InvalidField
from serving.seams import Message, Tool
from serving.tasks.bounded_rendering import render_bounded
from serving.tasks.control_tokens import ControlTokens
from serving.tasks.tool_calls import read_calls
from serving.tasks.tool_formats import ToolFormat, find_format

_REFUSAL_CHARACTERS = 300
"""Most of a template's own words that are repeated; they may quote the messages."""


class Chat:
    """Makes token ids of messages.

    Args:
        template: Source of the chat template.
        tool_template: Source of the one for chats with tools; may be the same.
        variables: What they see beside the messages.
        control_tokens: Of the templates and the tokenizer.
    """

    def __init__(
        self,
        template: str,
        tool_template: str,
        variables: Mapping[str, str],
        control_tokens: ControlTokens,
    ) -> None:
        self.template = template
        self.variables = variables
        self._tool_template = tool_template
        self._control_tokens = control_tokens
        self._tool_format, self._why_no_tools = find_format(tool_template, variables, read_calls)

    def tool_format(self) -> ToolFormat:
        """How the model writes calls of tools.

        Raises:
            InvalidField: The template has no place for tools, or writes calls in an unknown form.
        """
        if self._tool_format is None:
            raise InvalidField(f"tools: {self._why_no_tools}; leave tools out", param="tools")
        return self._tool_format

    def encode(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        """Token ids up to where the answer begins; see ``Generation.encode_chat``."""
        if tools:
            self.tool_format()
        self._check_calls(messages)
        template = self._tool_template if tools else self.template
        marked = [self._mark(_as_dict(said)) for said in messages]
        definitions = [self._mark(tool.definition) for tool in tools]
        try:
            text = render_bounded(template, self.variables, marked, tools=definitions)
        except TemplateError as error:
            reason = shorten(str(error), _REFUSAL_CHARACTERS, placeholder=" …")
            raise InvalidField(
                f"the model's chat template refuses messages: {reason}", param="messages"
            ) from error
        return self._control_tokens.encode(text)

    def _check_calls(self, messages: Sequence[Message]) -> None:
        """Refuse calls and their results where the template would leave them out."""
        if self._tool_format is not None:
            return
        for place, said in enumerate(messages):
            if said.tool_calls or said.role == "tool":
                what = "tool_calls" if said.tool_calls else "role"
                raise InvalidField(
                    f"messages[{place}].{what}: {self._why_no_tools}", param="messages"
                )

    def _mark(self, value: Any) -> Any:
        """Mark every name of a control token in the texts of a JSON value."""
        if isinstance(value, str):
            return self._control_tokens.mark(value)
        if isinstance(value, Mapping):
            return {self._mark(name): self._mark(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._mark(inner) for inner in value]
        return value


def _as_dict(said: Message) -> dict[str, Any]:
    """A message as templates know it; what is not said of it is not there."""
    message: dict[str, Any] = {"role": said.role, "content": said.content}
    if said.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in said.tool_calls
        ]
    if said.tool_call_id is not None:
        message["tool_call_id"] = said.tool_call_id
    if said.tool_name is not None:
        message["name"] = said.tool_name
    return message
