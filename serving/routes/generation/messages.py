"""The turns of a chat, as OpenAI's clients send them and get them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from serving.routes.generation.inert_fields import only
from serving.routes.generation.tools import ToolCallBody
from serving.routes.schemas import Body
from serving.seams import Message

TextOrNothing = Annotated[str, StringConstraints(min_length=0)]


class TextPart(Body):
    """A part of a message; where a client would have the cache end changes no answer."""

    type: Literal["text"]
    text: TextOrNothing
    cache_control: dict[str, Any] | None = None


class MessageBody(Body):
    """One turn of a chat.

    Attributes:
        role: ``developer`` is OpenAI's newer name for ``system`` and means the same; ``tool`` gives
            the result of a call.
        content: A text, or parts that are joined by line breaks. The assistant's may be left out,
            which means the same as an empty one.
        name: Accepted since clients send it; the model is not told, but of a tool. Likewise
            ``cache_control``.
        tool_calls: Of the assistant, as a client got them.
        tool_call_id: Of the call whose result this is.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: TextOrNothing | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = None
    cache_control: dict[str, Any] | None = None
    tool_calls: list[ToolCallBody] = Field(default_factory=list)
    tool_call_id: str | None = None

    # Of a turn of the assistant, as a client got it and sends it back; what the client has read out
    # of it is in the content, too.
    parsed: Any = None
    refusal: Annotated[Any, only()] = None
    annotations: Annotated[Any, only([])] = None
    audio: Annotated[Any, only()] = None
    function_call: Annotated[Any, only()] = None
    reasoning: Annotated[Any, only("")] = None
    reasoning_content: Annotated[Any, only("")] = None

    @model_validator(mode="before")
    @classmethod
    def _said_nothing(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("role") == "assistant":
            return {**data, "content": data["content"] if data.get("content") is not None else ""}
        return data

    @field_validator("content", mode="before")
    @classmethod
    def _parts_are_text(cls, value: object) -> object:
        for part in value if isinstance(value, list) else []:
            if isinstance(part, dict) and (kind := part.get("type", "text")) != "text":
                raise ValueError(f"parts of type {kind!r} are not supported; send text")
        return value

    @model_validator(mode="after")
    def _calls_and_results_have_their_roles(self) -> MessageBody:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"tool_calls are the assistant's, not of role {self.role!r}")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise ValueError("tool_call_id goes with role 'tool', and with no other")
        return self

    def to_message(self, place: str = "message") -> Message:
        """The same for the backend.

        Args:
            place: Where it stands, for messages.

        Raises:
            InvalidField: The arguments of a call are no JSON object.
        """
        content = self.content
        if not isinstance(content, str):
            content = "\n".join(part.text for part in content)
        return Message(
            role="system" if self.role == "developer" else self.role,
            content=content,
            tool_calls=tuple(
                call.to_call(f"{place}.tool_calls[{number}]")
                for number, call in enumerate(self.tool_calls)
            ),
            tool_call_id=self.tool_call_id,
            tool_name=self.name if self.role == "tool" else None,
        )


def to_messages(bodies: Sequence[MessageBody]) -> tuple[Message, ...]:
    """A whole chat for the backend; the name of a tool is that of the call that it answers.

    Raises:
        InvalidField: See ``MessageBody.to_message``.
    """
    names: dict[str | None, str] = {}
    messages = []
    for number, body in enumerate(bodies):
        message = body.to_message(f"messages[{number}]")
        names |= {call.id: call.name for call in message.tool_calls}
        if message.role == "tool" and message.tool_name is None:
            message = replace(message, tool_name=names.get(message.tool_call_id))
        messages.append(message)
    return tuple(messages)
