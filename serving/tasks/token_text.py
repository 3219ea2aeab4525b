"""Tokens back to text: piece by piece while a sequence grows, and one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from tokenizers import Tokenizer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_KEPT_TOKENS = 8
"""Tokens that are decoded again with each new one, at least. Four would do: a character that waits
for its last byte has come with three at most, and the one before settles where it starts."""


def _byte_characters() -> dict[str, int]:
    """The byte of each character in which a byte-level vocabulary writes its names.

    Bytes that are visible in Latin-1 stand for themselves, the others for the characters from
    U+0100 on, in order.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(0x100) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {
        chr(0x100 + place): byte for place, byte in enumerate(hidden)
    }


class Vocabulary:
    """What the tokens of a tokenizer stand for.

    It only reads the tokenizer, so every thread may ask at once.

    Attributes:
        special: Tokens that are no part of a text.
        byte_tokens: The byte of each token that stands for one (``<0x0A>``, byte fallback as in
            sentencepiece). A run of them is decoded together: to characters if all of it is UTF-8,
            else to one U+FFFD per byte.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.special = frozenset(
            token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special
        )
        # What a decoder does with a name tells its kind, wherever in a sequence of decoders it is.
        is_byte_level = self._decoder_turns("Ġ", " ")
        self._byte_of_character = _byte_characters() if is_byte_level else {}
        names = {f"<0x{byte:02X}>": byte for byte in range(256)}
        self.byte_tokens: dict[int, int] = (
            {
                token: byte
                for name, byte in names.items()
                if (token := tokenizer.token_to_id(name)) is not None
            }
            if self._decoder_turns("<0x41>", "A")
            else {}
        )

    def is_text(self, token: int) -> bool:
        """Whether a token is part of the text: no special one, nor one that only pads a matrix."""
        return token not in self.special and self._tokenizer.id_to_token(token) is not None

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of a whole sequence, without special tokens."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def token_text(self, token: int) -> tuple[str, bytes]:
        """Text of one token as it stands within a text, and its bytes.

        Special tokens go by their name; bytes that are no character become U+FFFD.
        """
        name = self._tokenizer.id_to_token(token)
        if name is None:
            return "", b""
        if token in self.special:
            raw = name.encode()
        elif token in self.byte_tokens:
            raw = bytes([self.byte_tokens[token]])
        elif name and self._byte_of_character.keys() >= set(name):
            raw = bytes(self._byte_of_character[character] for character in name)
        else:
            # Twice, since some decoders strip the leading space of a text.
            raw = self.decode([token, token])[len(self.decode([token])) :].encode()
        return raw.decode(errors="replace"), raw

    def _decoder_turns(self, name: str, text: str) -> bool:
        decoder = self._tokenizer.decoder
        return decoder is not None and decoder.decode([name]) == text


class StreamedText:
    """The text of tokens that follow a prompt; the seam ``TextStream``.

    All its pieces together are what decoding prompt and tokens at once gives after the prompt's
    own text. The ``DecodeStream`` of tokenizers holds back the last characters for ever, fails
    where a run of byte tokens turns out not to be UTF-8, and decodes a growing sequence as long as
    it ends in stray bytes; here a token costs a decoding of 17 at most, a run of byte tokens one
    at its end.

    Args:
        vocabulary: What the tokens stand for.
        prompt: What the text follows.
        shown: Special tokens that are a part of it nevertheless, and how each is written.
    """

    def __init__(
        self, vocabulary: Vocabulary, prompt: Sequence[int], shown: Mapping[int, str] | None = None
    ) -> None:
        self._vocabulary = vocabulary
        self._shown = shown or {}
        # Some decoders strip the leading space of a text, so the prompt's last tokens stay in
        # front; but not a run of byte tokens, which has ended with the prompt.
        context = (
            token
            for token in reversed(prompt)
            if vocabulary.is_text(token) and token not in vocabulary.byte_tokens
        )
        self._window = list(islice(context, _KEPT_TOKENS))[::-1]
        self._num_given = len(vocabulary.decode(self._window))

    def push(self, token: int) -> str:
        """Return the text that is certain now and was not before."""
        if token in self._shown:
            return self._advance(is_end=True) + self._shown[token]
        if not self._vocabulary.is_text(token):
            return ""
        self._window.append(token)
        if token in self._vocabulary.byte_tokens:
            return ""
        return self._advance(is_end=False)

    def finish(self) -> str:
        """Return what was held back; bytes that are no character become U+FFFD."""
        return self._advance(is_end=True)

    def _advance(self, is_end: bool) -> str:
        text = self._vocabulary.decode(self._window)
        # The last character may be a start that the next token completes; all before is settled.
        is_open = text.endswith(_REPLACEMENT) and not is_end
        settled = text[:-1] if is_open else text
        new = settled[self._num_given :]
        self._num_given += len(new)
        if len(self._window) > 2 * _KEPT_TOKENS:
            self._shorten(num_held=len(text) - self._num_given)
        return new

    def _shorten(self, num_held: int) -> None:
        self._window = self._window[-_KEPT_TOKENS:]
        self._num_given = len(self._vocabulary.decode(self._window)) - num_held
