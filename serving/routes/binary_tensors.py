"""Tensors in binary, by the Open Inference Protocol's extension: little-endian, row by row.

An element of BYTES is its length in four bytes and then itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from serving.errors import InvalidField

LENGTH_BYTES = 4


def read_texts(binary: bytes, place: str) -> list[str]:
    """The texts of a BYTES tensor.

    Args:
        binary: The whole tensor.
        place: Where it stands in the request, for messages.

    Raises:
        InvalidField: A length does not fit, or a text is empty or no UTF-8.
    """
    texts: list[str] = []
    start = 0
    while start < len(binary):
        begin = start + LENGTH_BYTES
        end = begin + int.from_bytes(binary[start:begin], "little")
        if end > len(binary):
            raise InvalidField(
                f"{place}: element {len(texts)} goes beyond the end of the tensor's "
                f"{len(binary)} bytes",
                param="inputs",
            )
        texts.append(_text(binary[begin:end], f"{place}: element {len(texts)}"))
        start = end
    return texts


def to_binary(values: Any, datatype: str) -> bytes:
    """The bytes of an FP32 tensor, or of a BYTES tensor of texts."""
    if datatype == "BYTES":
        return b"".join(_elements(values))
    return np.asarray(values, "<f4").tobytes()


def _elements(texts: Iterable[str]) -> Iterable[bytes]:
    for text in texts:
        raw = text.encode()
        yield len(raw).to_bytes(LENGTH_BYTES, "little") + raw


def _text(raw: bytes, place: str) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise InvalidField(f"{place} is no UTF-8", param="inputs") from None
    if not text:
        raise InvalidField(f"{place} is empty; send some text", param="inputs")
    return text
