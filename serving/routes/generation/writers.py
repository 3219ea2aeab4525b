"""Turns pieces of generated text into OpenAI's objects. No I/O."""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

from serving.seams import GenerationChunk, GenerationSummary, TextLogprob, ToolCallDelta


class Writer(Protocol):
    """How a route writes the choices of one request."""

    id_prefix: str
    object: str
    chunk_object: str

    def choice(self, chunk: GenerationChunk) -> dict[str, Any]:
        """A choice that came as a single chunk."""

    def delta(self, chunk: GenerationChunk) -> dict[str, Any]:
        """The next piece of a choice."""


class CompletionWriter:
    """Writes ``text_completion`` objects; pieces have the form of the whole.

    Args:
        has_logprobs: Whether the request asks for them; a piece without tokens has empty ones then.
    """

    id_prefix = "cmpl-"
    object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, has_logprobs: bool) -> None:
        self._has_logprobs = has_logprobs
        self._offsets: dict[int, _Offsets] = defaultdict(_Offsets)

    def choice(self, chunk: GenerationChunk) -> dict[str, Any]:
        """See ``Writer.choice``."""
        return self.delta(chunk)

    def delta(self, chunk: GenerationChunk) -> dict[str, Any]:
        """See ``Writer.delta``."""
        return {
            "index": chunk.choice,
            "text": chunk.text,
            "logprobs": self._logprobs(chunk) if self._has_logprobs else None,
            "finish_reason": chunk.finish,
        }

    def _logprobs(self, chunk: GenerationChunk) -> dict[str, Any]:
        offsets = self._offsets[chunk.choice]
        return {
            "tokens": [_name(token.text, token.raw) for token in chunk.logprobs],
            "token_logprobs": [token.logprob for token in chunk.logprobs],
            "top_logprobs": [_by_name(token) for token in chunk.logprobs],
            "text_offset": [offsets.next(token.raw) for token in chunk.logprobs],
        }


class ChatWriter:
    """Writes ``chat.completion`` objects, and chunks whose first has the role.

    Args:
        has_logprobs: See ``CompletionWriter``.
    """

    id_prefix = "chatcmpl-"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, has_logprobs: bool) -> None:
        self._has_logprobs = has_logprobs
        self._begun: set[int] = set()

    def choice(self, chunk: GenerationChunk) -> dict[str, Any]:
        """See ``Writer.choice``."""
        message: dict[str, Any] = {"role": "assistant", "content": chunk.text, "refusal": None}
        if chunk.tool_calls:
            message |= {"content": chunk.text or None, "tool_calls": _whole_calls(chunk.tool_calls)}
        return {
            "index": chunk.choice,
            "message": message,
            "logprobs": _chat_logprobs(chunk.logprobs) if self._has_logprobs else None,
            "finish_reason": chunk.finish,
        }

    def delta(self, chunk: GenerationChunk) -> dict[str, Any]:
        """See ``Writer.delta``."""
        delta: dict[str, Any] = {"content": chunk.text} if chunk.text else {}
        if chunk.choice not in self._begun:
            self._begun.add(chunk.choice)
            content = None if chunk.tool_calls and not chunk.text else chunk.text
            delta = {"role": "assistant", "content": content}
        if chunk.tool_calls:
            delta["tool_calls"] = [_call_delta(piece) for piece in chunk.tool_calls]
        return {
            "index": chunk.choice,
            "delta": delta,
            "logprobs": _chat_logprobs(chunk.logprobs) if self._has_logprobs else None,
            "finish_reason": chunk.finish,
        }


def _call_delta(piece: ToolCallDelta) -> dict[str, Any]:
    if piece.id is None:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    function = {"name": piece.name, "arguments": piece.arguments}
    return {"index": piece.index, "id": piece.id, "type": "function", "function": function}


def _whole_calls(pieces: Sequence[ToolCallDelta]) -> list[dict[str, Any]]:
    """The calls that pieces make; an index says only in a stream to which call a piece belongs."""
    calls: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        if piece.id is not None:
            function = {"name": piece.name, "arguments": ""}
            calls[piece.index] = {"id": piece.id, "type": "function", "function": function}
        calls[piece.index]["function"]["arguments"] += piece.arguments
    return list(calls.values())


def usage(summary: GenerationSummary) -> dict[str, Any]:
    """OpenAI's ``usage`` object."""
    return {
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": summary.output_tokens,
        "total_tokens": summary.prompt_tokens + summary.output_tokens,
        "prompt_tokens_details": {"cached_tokens": summary.cached_tokens},
    }


def usage_so_far(chunk: GenerationChunk) -> dict[str, int]:
    """OpenAI's ``usage`` of the choice that a chunk belongs to, up to its end."""
    return {
        "prompt_tokens": chunk.prompt_tokens,
        "completion_tokens": chunk.output_tokens,
        "total_tokens": chunk.prompt_tokens + chunk.output_tokens,
    }


def figures(summary: GenerationSummary, num_choices: int) -> dict[str, float | None]:
    """Where the time of a request went, in milliseconds.

    The time per output token is the mean after the first one. It is None for a single token, and
    for several choices, which may differ in length.
    """
    timings = summary.timings
    per_token = None
    if num_choices == 1 and summary.output_tokens > 1:
        since_first = timings.decode + timings.decode_core_wait
        per_token = _ms(since_first / (summary.output_tokens - 1))
    return {
        "queue_ms": _ms(timings.queue),
        "tokenize_ms": _ms(timings.tokenize),
        "core_wait_ms": _ms(timings.core_wait),
        "prefill_ms": _ms(timings.prefill),
        "decode_ms": _ms(timings.decode),
        "total_ms": _ms(timings.total),
        "time_to_first_token_ms": _ms(timings.first_token),
        "time_per_output_token_ms": per_token,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


class _Offsets:
    """Where the tokens of one text begin, in characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._length = 0

    def next(self, raw: bytes) -> int:
        """Where the next token begins."""
        offset = self._length
        self._length += len(self._decoder.decode(raw))
        return offset


def _name(text: str, raw: bytes) -> str:
    """A token's text, or the form that OpenAI has for a part of a character."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
    return text


def _by_name(token: TextLogprob) -> dict[str, float] | None:
    """Log-probabilities of a token and its rivals; none for the first token of a prompt."""
    if token.logprob is None:
        return None
    rivals = {_name(text, raw): logprob for text, raw, logprob in token.top}
    return {**rivals, _name(token.text, token.raw): token.logprob}


def _chat_logprobs(tokens: Sequence[TextLogprob]) -> dict[str, Any]:
    content = [
        {
            "token": token.text,
            "logprob": token.logprob,
            "bytes": list(token.raw),
            "top_logprobs": [
                {"token": text, "logprob": logprob, "bytes": list(raw)}
                for text, raw, logprob in token.top
            ],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}
