"""Reads the header of a GGUF file: what the file says of itself, and where its tensors lie.

The package ``gguf`` believes a file: it walks an array to the end that the array states, of 2⁶³
numbers too, and makes an object of each. A file of somebody else is not to be believed, so this
reader compares every count and every place with the bytes that are there, and reads no more than a
header may have. What it lets through, the package and llama.cpp read in bounded time and memory.

The layout is that of the specification in ggml's ``docs/gguf.md``.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 128 * 2**20
"""Ten times that of a vocabulary of 262,144 with its merges, the largest in use."""

MAX_ARRAY_ITEMS = 4_000_000
"""In all arrays together; three times the same. ``gguf`` keeps some 300 bytes of each."""

MAX_TENSORS = 65_536
MAX_KEYS = 65_536

MAX_NAME_BYTES = 65_535
"""Of a key, as specified; a tensor's name may have far less."""

MAX_DIMENSIONS = 4
KEPT_ITEMS = 4_096
"""Longer arrays, which are vocabularies, are not kept."""

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_BOOL = 7
_NUMBERS = {
    **{0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f"},
    **{_BOOL: "?", 10: "Q", 11: "q", 12: "d"},
}
"""Types of values by their number in the file, as ``struct`` names them."""

_SMALLEST_KEY, _SMALLEST_TENSOR = 8 + 4 + 1, 8 + 4 + 4 + 8
"""Bytes of an entry with an empty name."""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor of a GGUF file.

    Attributes:
        shape: Outermost dimension first; the file has them the other way round.
        type: As ggml names it, e.g. ``Q4_1``.
    """

    name: str
    shape: tuple[int, ...]
    type: str


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says of itself.

    Attributes:
        values: By their keys; long arrays, and those of strings, are left out.
        tensors: In the order of the file.
    """

    values: Mapping[str, Any]
    tensors: Sequence[GgufTensor]


def read_gguf_header(file: Path) -> GgufHeader:
    """Read and check the header of a GGUF file; its tensors stay unread.

    Raises:
        ValueError: It is no GGUF file, or one that does not hold what its header says; says where.
        OSError: There is no such file, or it may not be read.
    """
    with file.open("rb") as opened:
        if opened.seek(0, 2) == 0:
            raise ValueError("the file is empty")
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).read()


class _Reader:
    """Goes once through a header."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._size = len(data)
        self._end = min(self._size, MAX_HEADER_BYTES)
        self._place = 0
        self._items = 0

    def read(self) -> GgufHeader:
        if self._data[: len(_MAGIC)] != _MAGIC:
            raise ValueError("it does not begin with GGUF")
        self._skip(len(_MAGIC), "the magic number")
        version = self._number("I", "the version")
        if version not in _VERSIONS:
            # A file of the other byte order has its version in the upper half.
            raise ValueError(f"version {version} of GGUF is not read; those read: 2 and 3")
        num_tensors = self._count("tensors", MAX_TENSORS, _SMALLEST_TENSOR)
        num_keys = self._count("keys", MAX_KEYS, _SMALLEST_KEY)
        values: dict[str, Any] = {}
        for _ in range(num_keys):
            key = self._string("a key", MAX_NAME_BYTES)
            if key in values:
                raise ValueError(f"key {key!r} is there twice")
            values[key] = self._value(key, self._number("I", f"the type of {key!r}"))
        _refuse_part(values.get("split.count"))
        tensors, places = self._tensors(num_tensors)
        self._check_places(tensors, places, _alignment(values))
        return GgufHeader({k: v for k, v in values.items() if v is not None}, tensors)

    def _tensors(self, count: int) -> tuple[list[GgufTensor], list[tuple[int, int]]]:
        """Every tensor; and where it says that it begins, and its bytes."""
        # Its table of types is all that is wanted of the package.
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        names: set[str] = set()
        tensors, places = [], []
        for _ in range(count):
            name = self._string("a tensor's name", MAX_NAME_BYTES)
            if name in names:
                raise ValueError(f"tensor {name!r} is there twice")
            names.add(name)
            num_dimensions = self._number("I", f"the dimensions of {name!r}")
            if not 1 <= num_dimensions <= MAX_DIMENSIONS:
                raise ValueError(
                    f"tensor {name!r} has {num_dimensions} dimensions; expected 1 to "
                    f"{MAX_DIMENSIONS}"
                )
            inner_first = [self._number("Q", f"a size of {name!r}") for _ in range(num_dimensions)]
            number = self._number("I", f"the type of {name!r}")
            try:
                kind = GGMLQuantizationType(number)
                block, block_bytes = GGML_QUANT_SIZES[kind]
            except (ValueError, KeyError):
                raise ValueError(f"tensor {name!r} has an unknown type, {number}") from None
            if inner_first[0] % block:
                raise ValueError(
                    f"tensor {name!r} has rows of {inner_first[0]}, no multiple of the {block} in "
                    f"a block of {kind.name}"
                )
            places.append(
                (
                    self._number("Q", f"the place of {name!r}"),
                    prod(inner_first) // block * block_bytes,
                )
            )
            tensors.append(GgufTensor(name, tuple(reversed(inner_first)), kind.name))
        return tensors, places

    def _check_places(
        self, tensors: Sequence[GgufTensor], places: Sequence[tuple[int, int]], alignment: int
    ) -> None:
        """Compare where tensors are said to lie with the file and with each other."""
        room = self._size - -(-self._place // alignment) * alignment
        end, before = 0, ""
        for (begin, size), name in sorted(zip(places, (one.name for one in tensors), strict=True)):
            if begin % alignment:
                raise ValueError(f"tensor {name!r} begins at {begin}, no multiple of {alignment}")
            if begin + size > room:
                raise ValueError(
                    f"tensor {name!r} ends {begin + size:,} bytes after the header, where "
                    f"{max(room, 0):,} follow: the file is cut, or its header wrong"
                )
            if begin < end and size:
                raise ValueError(f"tensors {before!r} and {name!r} overlap")
            if size:
                end, before = begin + size, name

    def _value(self, key: str, kind: int) -> Any:
        """One value; None where it is not kept."""
        if kind == _ARRAY:
            return self._array(key)
        if kind == _STRING:
            return self._string(f"the value of {key!r}")
        return self._number(self._form(key, kind), f"the value of {key!r}")

    def _array(self, key: str) -> list[Any] | None:
        what = f"the array {key!r}"
        kind, length = self._number("I", what), self._number("Q", what)
        if kind == _ARRAY:
            raise ValueError(f"{what} holds arrays, which no model needs")
        form = "" if kind == _STRING else self._form(key, kind)
        smallest = struct.calcsize(form) if form else 8  # a string begins with its length
        if length * smallest > self._end - self._place:
            raise self._too_short(f"{what} of {length:,}")
        self._items += length
        if self._items > MAX_ARRAY_ITEMS:
            raise ValueError(f"its arrays have more than {MAX_ARRAY_ITEMS:,} items")
        if not form:
            for _ in range(length):
                self._skip(self._number("Q", what), what)
            return None
        begin = self._place
        self._skip(length * smallest, what)
        if length > KEPT_ITEMS:
            return None
        return list(struct.unpack_from(f"<{length}{form}", self._data, begin))

    def _form(self, key: str, kind: int) -> str:
        if (form := _NUMBERS.get(kind)) is None:
            raise ValueError(f"{key!r} has an unknown type, {kind}")
        return form

    def _count(self, what: str, limit: int, smallest: int) -> int:
        count = self._number("Q", f"the number of {what}")
        if count > limit:
            raise ValueError(f"it says that it has {count:,} {what}; at most {limit:,} are read")
        if count * smallest > self._end - self._place:
            raise self._too_short(f"a list of {count:,} {what}")
        return int(count)

    def _string(self, what: str, limit: int | None = None) -> str:
        length = self._number("Q", what)
        if limit is not None and length > limit:
            raise ValueError(f"{what} has {length:,} bytes; at most {limit:,} are read")
        begin = self._place
        self._skip(length, what)
        try:
            return self._data[begin : self._place].decode()
        except UnicodeDecodeError:
            raise ValueError(f"{what} at byte {begin:,} is not UTF-8") from None

    def _number(self, form: str, what: str) -> Any:
        begin = self._place
        self._skip(struct.calcsize(form), what)
        (number,) = struct.unpack_from(f"<{form}", self._data, begin)
        return number

    def _skip(self, length: int, what: str) -> None:
        if length > self._end - self._place:
            raise self._too_short(what)
        self._place += length

    def _too_short(self, what: str) -> ValueError:
        if self._end < self._size:
            limit = f"{MAX_HEADER_BYTES // 2**20} MiB, which is all that is read of a header"
            return ValueError(f"{what} at byte {self._place:,} goes beyond {limit}")
        return ValueError(f"{what} at byte {self._place:,} goes beyond the end of the file")


def _refuse_part(count: Any) -> None:
    if isinstance(count, int) and count > 1:
        raise ValueError(
            f"it is one of {count} files that are one model (split.count). Join them: "
            "llama-gguf-split --merge FIRST.gguf WHOLE.gguf"
        )


def _alignment(values: Mapping[str, Any]) -> int:
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment!r}; expected a power of two")
    return int(alignment)
