"""Tasks: what stands between text and an engine's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.seams.backend import Message
from serving.seams.encoder import EncoderHead


class EncoderTask(Protocol):
    """What an encoder does: text to token ids before the engine, rows to answers after it."""

    head: EncoderHead
    max_tokens: int
    width: int
    labels: tuple[str, ...]

    def encode(self, texts: Sequence[str], truncate: bool) -> list[list[int]]:
        """Token ids of each text, special tokens included.

        Raises:
            InvalidField: A text is longer than ``max_tokens`` and ``truncate`` is False.
        """

    def check_dimensions(self, dimensions: int | None) -> None:
        """Raise ``InvalidField`` unless answers can be cut to ``dimensions``; None cuts nothing."""

    def decode(self, rows: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
        """Turn the engine's rows (texts, width) into answers; ``dimensions`` is checked before."""


class TextStream(Protocol):
    """Turns the tokens of one sequence into text, piece by piece."""

    def push(self, token: int) -> str:
        """Return the text that is certain now and was not before.

        A character whose bytes are not all there yet is held back.
        """

    def finish(self) -> str:
        """Return what was held back; bytes that are no character become U+FFFD."""


class GenerationTask(Protocol):
    """What a causal language model does: prompts to token ids, and tokens back to text."""

    stop_tokens: frozenset[int]
    max_tokens: int
    """Most tokens of prompt and continuation together."""

    def encode_prompt(self, prompt: str) -> tuple[int, ...]:
        """Token ids of a text to continue.

        Raises:
            InvalidField: It has no token, or so many that no new one fits.
        """

    def encode_continuation(
        self, prompt: str, continuation: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of a text of any length, cut where its prompt ends.

        Both parts are tokenized together, as a model would have read them. What the prompt alone
        has in common with that is the prompt: a token that reaches over the border, or depends on
        what follows, belongs to the continuation, so that none of it goes unscored.
        """

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of a chat in the tokenizer's template, up to where the answer begins.

        Raises:
            InvalidField: The model has no template, or the template refuses the messages, or they
                are so long that no new token fits.
        """

    def open_text(self, prompt: Sequence[int]) -> TextStream:
        """Start the text that follows ``prompt``."""

    def token_text(self, token: int) -> tuple[str, bytes]:
        """Text of one token alone, and its bytes; special tokens by their name."""
