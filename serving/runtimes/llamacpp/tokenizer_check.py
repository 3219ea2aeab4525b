"""Compares a GGUF file's own tokenizer with the checkpoint's, on strings that are hard to split.

Nothing here is tokenized by llama.cpp: a replica uses the checkpoint's tokenizer, as on every other
runtime. Whoever takes the file elsewhere should know where the two differ.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from serving.errors import ConfigError
from serving.runtimes.llamacpp.library import load_library

NUM_STRINGS = 10_000

PARTS = (
    *("a", "B", "the", "Hello", "world", "def f(x):", "e^{i\\pi}", "0x1F", "://", "_", "--", "..."),
    *(" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u200b", "\u2028", "\ufeff", "\x00", "\x7f"),
    *("1", "23", "4567", "\u0663", "\u00bd", "\u00b2", "'s", "'ll", "n't", "\u2019s", "!?", "[["),
    *(
        "\u00e9",
        "e\u0301",
        "\u0301",
        "\u00df",
        "\ufb01",
        "\u0130",
        "\u0131",
        "\u01c5",
        "\U0001d400",
    ),
    *("日本", "中文", "한국어", "עברית", "العربية", "नमस्ते", "\u0915\u094d", "\u0e01\u0e47"),
    *("🙂", "👩\u200d👩\u200d👧", "🇩🇪", "<", "|>", "<|im_end|>", "<|endoftext|>", "</s>", "[SEP]"),
)
"""Pieces whose borders tokenizers treat in ways of their own."""

_RANGES = ((0x20, 0x300), (0x300, 0xD800), (0xE000, 0x1FFFF))
"""Code points; between them are surrogates, which no text has."""


def hard_strings(count: int = NUM_STRINGS, seed: int = 0) -> Iterator[str]:
    """Texts of pieces in any order, a fifth of them with code points drawn from all."""
    draw = random.Random(seed)  # noqa: S311 (no secret)
    for _ in range(count):
        pieces = [draw.choice(PARTS) for _ in range(draw.randint(2, 14))]
        if draw.random() < 0.2:
            pieces += [chr(draw.randrange(*draw.choice(_RANGES))) for _ in range(5)]
        yield "".join(pieces)


def compare_tokenizers(file: Path, tokenizer_file: Path) -> str:
    """Say on how many of the hard strings a GGUF file's tokenizer differs from a checkpoint's.

    Args:
        file: The GGUF file, with a tokenizer.
        tokenizer_file: ``tokenizer.json`` of the checkpoint.

    Raises:
        ConfigError: llama.cpp cannot read the file's tokenizer.
    """
    expected = Tokenizer.from_file(str(tokenizer_file))
    expected.no_padding()
    expected.no_truncation()
    with_tokenizer = _Vocabulary(file)
    differing = [
        text
        for text in hard_strings()
        if with_tokenizer.encode(text) != expected.encode(text, add_special_tokens=False).ids
    ]
    if not differing:
        return f"the GGUF file's tokenizer is the checkpoint's on {NUM_STRINGS:,} hard strings"
    shortest = sorted(differing, key=len)[:3]
    return (
        f"the GGUF file's own tokenizer, which is not used here, differs from the checkpoint's on "
        f"{len(differing):,} of {NUM_STRINGS:,} hard strings, such as "
        f"{', '.join(repr(text) for text in shortest)}"
    )


class _Vocabulary:
    """The tokenizer of a GGUF file, without its weights."""

    def __init__(self, file: Path) -> None:
        library = load_library()
        self._api = library.functions
        parameters = self._api.llama_model_default_params()
        parameters.vocab_only = True
        self._model = self._api.llama_model_load_from_file(str(file).encode(), parameters)
        if not self._model:
            raise ConfigError(f"llama.cpp cannot load {file.name}: {library.reason()}")
        self._vocabulary = self._api.llama_model_get_vocab(self._model)

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self._api.llama_model_free(self._model)

    def encode(self, text: str) -> list[int]:
        data = text.encode()
        room = len(data) + 2  # no token is of less than a byte
        found = (ctypes.c_int32 * room)()
        count: int = self._api.llama_tokenize(
            self._vocabulary, data, len(data), found, room, False, True
        )
        return list(found[:count])
