"""Keeps control tokens that a message only names apart from those that a chat template writes.

Without it, a message that holds ``<|im_end|>`` would end its turn and go on in another role. Each
name is marked before the template is rendered; marked ones are then encoded as plain text. The ids
are those of transformers' ``apply_chat_template(sanitize_control_tokens=True)``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from tokenizers import Tokenizer

from serving.errors import InvalidField

START, END = "\U000f0000", "\U000f0001"
"""Stand around a marked name. They are for private use, and those of a message are dropped."""


def find_control_tokens(tokenizer: Tokenizer, written: str, named: Iterable[str]) -> list[str]:
    """Names of the tokens that a message may not use.

    Args:
        tokenizer: With its added tokens.
        written: All that the template may write: added tokens in it control the chat, too, unless
            they are white space.
        named: Names of others that the checkpoint counts among them.
    """
    listed = set(named)
    return [
        token.content
        for token in tokenizer.get_added_tokens_decoder().values()
        if token.special
        or token.content in listed
        or (token.content in written and not token.content.isspace())
    ]


class ControlTokens:
    """Marks names of control tokens, and encodes rendered chats with marks.

    It only reads the tokenizer, so every thread may ask at once.

    Args:
        tokenizer: Encodes.
        names: Of the control tokens.
    """

    def __init__(self, tokenizer: Tokenizer, names: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        # The longest first: it comes before those that it contains.
        one_of = "|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)"
        self._name = re.compile(one_of)
        # A template may cut between a mark and its name; the mark alone still parts the text.
        self._marked = re.compile(f"{START}({one_of}){END}|[{START}{END}]")
        self._line_end = self._encode("\n")

    def mark(self, text: str) -> str:
        """Mark every name in a message."""
        text = text.replace(START, "").replace(END, "")
        return self._name.sub(rf"{START}\g<0>{END}", text)

    def encode(self, chat: str) -> list[int]:
        """Token ids of a rendered chat, marked names as plain text and without their marks.

        Raises:
            InvalidField: The tokenizer makes a control token of a name however it is read.
        """
        # Text, name, text, name, …, text; None for the name where a mark is alone.
        first, *others = self._marked.split(chat)
        ids = self._encode(first)
        for index, piece in enumerate(others):
            if piece:
                is_name = index % 2 == 0
                ids += self._encode_name(piece) if is_name else self._go_on(piece, self._encode)
        return ids

    def _encode_name(self, name: str) -> list[int]:
        ids = self._go_on(name, self._encode_as_text)
        if self._tokenizer.token_to_id(name) in ids:
            raise InvalidField(
                f"a message names {name!r}, which this model can only read as the control token; "
                "leave it out",
                param="messages",
            )
        return ids

    def _go_on(self, piece: str, encode: Callable[[str], list[int]]) -> list[int]:
        """Encode from the middle of a text: some tokenizers put a space before a whole one."""
        ids = encode("\n" + piece)
        size = len(self._line_end)
        return ids[size:] if ids[:size] == self._line_end else encode(piece)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _encode_as_text(self, text: str) -> list[int]:
        """Encode without looking for added tokens: the tokenizer's parts one after the other."""
        normalizer, splitter = self._tokenizer.normalizer, self._tokenizer.pre_tokenizer
        if normalizer is not None:
            text = normalizer.normalize_str(text)
        parts = [text]
        if splitter is not None:
            parts = [part for part, _ in splitter.pre_tokenize_str(text)]
        return [token.id for part in parts for token in self._tokenizer.model.tokenize(part)]
