"""Grammars over the tokens of one model, compiled and followed by llguidance."""

from __future__ import annotations

import re
from collections.abc import Callable
from threading import Lock

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from serving.errors import InvalidField
from serving.seams import TokenTable

MAX_GRAMMAR_CHARACTERS = 131_072
"""Compiling takes time that grows with it; see decision 27 for the times."""

MAX_STATES = 10_000
"""Of the automaton of a request's patterns, each of 1 to 2 kB."""

STEP_FUEL = 50_000
"""Work on patterns in each step, 14,000 a millisecond; the sequences beside it wait for it."""

MAX_ITEMS = 10_000
"""In one place of a text, as an object has of so many properties that may be left out."""

OPTIONS = '%llguidance {"no_forcing": true}\n'
"""The model chooses among all tokens that a text may go on with, also where only one text may."""

NO_TEXT = b"\xff"
"""Begins what llguidance takes for a special token's name; no text has this byte."""


class Grammars:
    """Compiles grammars for the tokens of one model.

    Args:
        read_tokens: What the tokens say; asked once, with the first grammar.
    """

    def __init__(self, read_tokens: Callable[[], TokenTable]) -> None:
        self._read_tokens = read_tokens
        self._tokenizer: LLTokenizer | None = None
        self._lock = Lock()

    def compile(self, lark: str, field: str) -> CompiledGrammar:
        """Compile a grammar in llguidance's Lark; any thread may ask.

        Nothing is kept for the next request: what a grammar has met of texts is shared by all that
        come of one compilation, and has an upper limit.

        Args:
            lark: The grammar.
            field: Of the request, for messages.

        Raises:
            InvalidField: It cannot be compiled, or it is too large, or the model has no stop token.
        """
        if len(lark) > MAX_GRAMMAR_CHARACTERS:
            raise InvalidField(
                f"{field}: {len(lark)} characters with all that belongs to it; "
                f"at most {MAX_GRAMMAR_CHARACTERS}",
                param=field,
            )
        tokenizer = self._tokens(field)
        limits = LLParserLimits(
            max_items_in_row=MAX_ITEMS,
            step_lexer_fuel=STEP_FUEL,
            max_lexer_states=MAX_STATES,
            verbose_errors=False,
        )
        source = LLMatcher.grammar_from_lark(OPTIONS + lark)
        matcher = LLMatcher(tokenizer, source, log_level=0, limits=limits)
        problems = [matcher.get_error()] if matcher.is_error() else matcher.get_grammar_warnings()
        if problems:
            raise InvalidField(f"{field}: {_in_words(problems[0])}", param=field)
        return CompiledGrammar(matcher, tokenizer.vocab_size, field)

    def _tokens(self, field: str) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                table = self._read_tokens()
                if not table.stop:
                    raise InvalidField(
                        f"{field}: the model has no stop token, so the answer would have no end",
                        param=field,
                    )
                self._tokenizer = _tokenizer(table)
            return self._tokenizer


class CompiledGrammar:
    """See ``Grammar``.

    Args:
        matcher: At the beginning of a text; copied for each.
        num_tokens: Of the tokenizer.
        field: Of the request, for messages.
    """

    def __init__(self, matcher: LLMatcher, num_tokens: int, field: str) -> None:
        self._matcher = matcher
        self._num_tokens = num_tokens
        self._field = field

    def begin(self) -> _State:
        """Start a sequence."""
        return _State(self._matcher.deep_copy(), self._num_tokens, self._field)


class _State:
    """See ``GrammarState``."""

    def __init__(self, matcher: LLMatcher, num_tokens: int, field: str) -> None:
        self._matcher = matcher
        self._bits = np.zeros(-(-num_tokens // 32), np.int32)
        self._field = field

    def allowed(self, num_tokens: int) -> NDArray[np.bool_]:
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        bits = np.unpackbits(self._bits.view(np.uint8), count=num_tokens, bitorder="little")
        allowed = bits.view(np.bool_)
        if not allowed.any():
            raise InvalidField(
                f"{self._field}: after what was generated no token can follow", param=self._field
            )
        return allowed

    def advance(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._check()

    def copy(self) -> _State:
        return _State(self._matcher.deep_copy(), 32 * len(self._bits), self._field)

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = _in_words(self._matcher.get_error())
            raise InvalidField(
                f"{self._field}: too much work for one step of an answer ({reason}); simplify its "
                "patterns",
                param=self._field,
            )


def _tokenizer(table: TokenTable) -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Tokens(table)), eos_token=sorted(table.stop))


class _Tokens:
    """What llguidance reads of a tokenizer."""

    bos_token_id = None

    def __init__(self, table: TokenTable) -> None:
        self.tokens = [
            NO_TEXT + raw if token in table.special else raw for token, raw in enumerate(table.raw)
        ]
        self.special_token_ids = sorted(table.special)
        self.eos_token_id = min(table.stop)

    def __call__(self, text: bytes) -> list[int]:
        """Asked for tokens of texts that are forced, of which ``OPTIONS`` allow none."""
        return []


def _in_words(message: str) -> str:
    """The first line of llguidance's message, without the place in a grammar of ours."""
    first = message.strip().split("\n", 1)[0]
    return re.sub(r"^at \d+\(\d+\): |failed to compile JSON schema: ", "", first)
