"""What one sequence says: its tokens as text, cut at stop strings, with its log-probabilities."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from serving.replica.generator.stop_strings import StopStrings
from serving.seams import (
    CallStream,
    EndReason,
    FinishReason,
    GeneratedToken,
    GenerationTask,
    TextLogprob,
    TokenLogprob,
    ToolCallDelta,
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a sequence begins with.

    Attributes:
        tokens: Its token ids.
        text: As it came, or what its token ids say; empty for a chat.
    """

    tokens: tuple[int, ...]
    text: str


class Continuation:
    """Turns the tokens of one sequence into what a client may get of them.

    Text is held back while it is a part of a character or could begin a stop string. A token's
    log-probability goes out with the first of its text; one that has no text of its own goes
    with the text after it. So both always say the same, also where a stop string cuts.

    Args:
        task: Detokenizes.
        prompt: What is continued.
        stop: Stop strings.
        echo: Whether the prompt goes before its continuation.
        is_scored_only: Whether nothing but the prompt is wanted: the first token ends the
            sequence and is thrown away.
        calls: Parts the text into what is said and calls of tools; None if there are none. The
            log-probabilities are of all tokens, those of calls among them.
    """

    def __init__(
        self,
        task: GenerationTask,
        prompt: Prompt,
        stop: Sequence[str] = (),
        echo: bool = False,
        is_scored_only: bool = False,
        calls: CallStream | None = None,
    ) -> None:
        self._task = task
        self._prompt = prompt
        self._echo = echo
        self._is_scored_only = is_scored_only
        self._text = task.open_text(prompt.tokens, calls is not None)
        self._calls = calls
        self._stops = StopStrings(stop)
        self._certain = 0
        """Characters of the continuation that are detokenized."""
        self._sendable = 0
        """Those of them that a stop string can no longer take back."""
        self._new_text: list[str] = []
        self._new_calls: list[ToolCallDelta] = []
        self._new_logprobs: list[TextLogprob] = []
        self._waiting: deque[tuple[int, TextLogprob]] = deque()
        """Log-probabilities of tokens, each with the place where its text begins."""
        self.num_tokens = 0
        self.finish: EndReason | None = None

    @property
    def has_news(self) -> bool:
        """Whether ``take`` has something to give."""
        return bool(self._new_text or self._new_calls or self._new_logprobs or self.finish)

    def push(self, generated: GeneratedToken) -> None:
        """Take the next token; none may follow once ``finish`` is set."""
        if self._echo and self.num_tokens == 0:
            self._put_prompt(generated.prompt, generated.logprob is not None)
        if self._is_scored_only:
            self.finish = "length"
            return
        self.num_tokens += 1
        if generated.finish != "stop":
            if generated.logprob is not None:
                self._waiting.append((self._certain, self._text_logprob(generated.logprob)))
            self._put(self._text.push(generated.token))
        if generated.finish is not None and self.finish is None:
            self._put(self._text.finish())
            if self.finish is None:
                self._end(generated.finish)

    def take(self) -> tuple[str, tuple[TextLogprob, ...]]:
        """Return what may be sent now and was not before."""
        text, logprobs = "".join(self._new_text), tuple(self._new_logprobs)
        self._new_text.clear()
        self._new_logprobs.clear()
        return text, logprobs

    def take_calls(self) -> tuple[ToolCallDelta, ...]:
        """Return likewise what is new of calls of tools."""
        calls = tuple(self._new_calls)
        self._new_calls.clear()
        return calls

    def _put(self, piece: str) -> None:
        if not piece:
            return
        self._certain += len(piece)
        self._send(self._stops.push(piece))
        if self._stops.found:
            self._close("stop")
        elif self._calls is not None and self._calls.has_ended:
            self._end("stop")

    def _end(self, finish: FinishReason) -> None:
        self._send(self._stops.finish())
        self._new_logprobs += [logprob for _, logprob in self._waiting]
        self._close(finish)

    def _close(self, finish: FinishReason) -> None:
        self.finish = finish
        if self._calls is not None:
            self._sort(self._calls.finish())
            if self._calls.num_calls and finish == "stop":
                self.finish = "tool_calls"

    def _send(self, text: str) -> None:
        if text:
            self._sort([text] if self._calls is None else self._calls.push(text))
            self._sendable += len(text)
        while self._waiting and self._waiting[0][0] < self._sendable:
            self._new_logprobs.append(self._waiting.popleft()[1])

    def _sort(self, pieces: Sequence[str | ToolCallDelta]) -> None:
        for piece in pieces:
            if isinstance(piece, str):
                self._new_text.append(piece)
            else:
                self._new_calls.append(piece)

    def _put_prompt(self, scores: Sequence[TokenLogprob], with_logprobs: bool) -> None:
        if self._prompt.text:
            self._new_text.append(self._prompt.text)
        if with_logprobs:
            first = TextLogprob(*self._task.token_text(self._prompt.tokens[0]), None, ())
            self._new_logprobs += [first, *map(self._text_logprob, scores)]

    def _text_logprob(self, scored: TokenLogprob) -> TextLogprob:
        token_text = self._task.token_text
        return TextLogprob(
            *token_text(scored.token),
            scored.logprob,
            tuple((*token_text(token), logprob) for token, logprob in scored.top),
        )
