"""How deep the JSON of a client may be nested.

Parsing, copying and writing nested values takes a level of the stack each, in several libraries
with limits of their own (orjson's and pydantic's are about 250). So depth is bounded before
anything is parsed.
"""

from __future__ import annotations

from json import detect_encoding

import numpy as np

from serving.errors import Malformed

MAX_NESTING = 200
"""Arrays and objects around one another. The deepest schema that is read, 64 schemas in ``anyOf``
or ``properties`` of one another, has about 130."""

_QUOTE = ord('"')
_OTHERS = bytes(set(range(256)) - {_QUOTE, *b"[]{}"})
_STEPS = np.zeros(256, np.int32)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1


def check_nesting(body: bytes) -> None:
    """Refuse a body whose JSON is nested too deep.

    What is no JSON is not refused for that: whoever parses it does so.

    Raises:
        Malformed: More than ``MAX_NESTING`` arrays and objects are open at once.
    """
    if is_too_deep(body):
        raise Malformed(
            f"the body has arrays and objects nested more than {MAX_NESTING} deep, the limit"
        )


def is_too_deep(json: bytes) -> bool:
    """Whether more than ``MAX_NESTING`` arrays and objects of a JSON text are open at once."""
    if json.count(b"[") + json.count(b"{") <= MAX_NESTING:
        return False
    try:
        # As json.loads does it, for which UTF-16 is JSON, too.
        plain = json.decode(detect_encoding(json), "surrogatepass").encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    unescaped = plain.replace(rb"\\", b"").replace(rb"\"", b"")
    signs = np.frombuffer(unescaped.translate(None, _OTHERS), np.uint8)
    is_outside = np.cumsum(signs == _QUOTE, dtype=np.int32) % 2 == 0
    return bool(np.cumsum(_STEPS[signs[is_outside]]).max(initial=0) > MAX_NESTING)
