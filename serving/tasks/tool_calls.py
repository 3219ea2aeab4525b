"""Finds the calls of tools in what a model writes, while it writes."""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Callable

from serving.seams import ToolCallDelta
from serving.tasks.tool_formats import ToolFormat

MAX_HEAD_CHARACTERS = 512
"""Of a call up to its arguments; what is longer waits for its end."""

HEAD = re.compile(
    r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?(?:"id"\s*:\s*"[^"\\]*"\s*,\s*)?'
    r'"name"\s*:\s*"([^"\\]+)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
"""A call up to its arguments, as models are taught to write it."""

Piece = str | ToolCallDelta
"""Text that is no call, or a piece of one."""


class CallReader:
    """Parts one answer into text and calls, piece by piece.

    The arguments of a call go out as they come. What begins like a call and is none is text, to the
    letter. White space beside calls is left out.

    Args:
        form: How calls are written.
        is_parallel: Whether there may be several; if not, the answer ends with its first.
    """

    def __init__(self, form: ToolFormat, is_parallel: bool = True) -> None:
        self._form = form
        self._is_parallel = is_parallel
        self._text = ""
        """What was written and is neither text nor call yet."""
        self._call: _Call | None = None
        self._state: Callable[[bool], list[Piece] | None] = self._outside
        self._blanks = ""
        self._opening = ""
        self._is_first = True
        self.num_calls = 0
        self.has_ended = False
        """Whether nothing more is wanted."""

    def push(self, text: str) -> list[Piece]:
        """Take the next piece; return what is certain now and was not before."""
        self._text += text
        return self._advance(is_end=False)

    def finish(self) -> list[Piece]:
        """Return what was held back, at the end of the answer."""
        found = self._advance(is_end=True)
        return [*found, self._blanks] if self._blanks and not self.num_calls else found

    def _advance(self, is_end: bool) -> list[Piece]:
        found: list[Piece] = []
        while not self.has_ended:
            pieces = self._state(is_end)
            if pieces is None:
                break
            found += pieces
        return found

    # Each state takes what it can of the text; None says that it waits for more.

    def _outside(self, is_end: bool) -> list[Piece] | None:
        if not self._text:
            return None
        if not self._form.begin:
            return self._whole_answer(is_end)
        begin = self._form.begin
        before, found, after = self._text.partition(begin)
        if found:
            self._text, self._opening, self._state = after, begin, self._before_call
            return self._as_text(before, is_before_call=True)
        held = 0 if is_end else _num_begun(self._text, begin)
        ready = self._text[: len(self._text) - held]
        self._text = self._text[len(ready) :]
        return self._as_text(ready) if ready else None

    def _whole_answer(self, is_end: bool) -> list[Piece] | None:
        """Calls are the whole answer, so one is looked for at its beginning, and after another."""
        begin, text = self._form.optional_begin, self._text.lstrip()
        if begin and text.startswith(begin):
            start = len(self._text) - len(text) + len(begin)
            rest = self._text[start:]
            if not rest.lstrip() and not is_end:
                return None
            if rest.lstrip().startswith("{"):
                return self._begin_call(start)
        elif text.startswith("{"):
            return self._begin_call(0)
        elif not is_end and begin.startswith(text):
            return None
        self._state = self._plain
        return []

    def _begin_call(self, start: int) -> list[Piece]:
        self._opening, self._text = self._text[:start], self._text[start:]
        self._state = self._before_call
        return []

    def _plain(self, is_end: bool) -> list[Piece] | None:
        text, self._text = self._text, ""
        return self._as_text(text) if text else None

    def _before_call(self, is_end: bool) -> list[Piece] | None:
        text = self._text.lstrip()
        if self._form.is_list and self._is_first and text.startswith("["):
            text = text[1:].lstrip()
        if not text and not is_end:
            return None
        if not text.startswith("{"):
            return self._give_up()
        self._opening += self._text[: len(self._text) - len(text)]
        self._text, self._call, self._state = text, _Call(self._form), self._inside
        return []

    def _inside(self, is_end: bool) -> list[Piece] | None:
        assert self._call is not None
        call, text = self._call, self._text
        self._text = call.push(text)
        pieces: list[Piece] = list(call.take(self.num_calls))
        if call.is_bad or (is_end and not call.is_complete and call.name is None):
            self._text = call.raw + self._text
            return self._give_up()
        if call.is_complete:
            self._blanks = ""
            self.num_calls += 1
            self._is_first = False
            self._state = self._after_call
            if not self._is_parallel:
                self.has_ended = True
            return pieces
        return pieces or None

    def _after_call(self, is_end: bool) -> list[Piece] | None:
        form, text = self._form, self._text.lstrip()
        if form.is_list:
            return self._after_listed(text)
        if form.end:
            if text.startswith(form.end):
                text = text.removeprefix(form.end)
            elif form.end.startswith(text) and not is_end:
                return None
            self._text, self._state = text, self._outside
            return []
        text = text.lstrip("; \n")
        self._text = text
        if not text:
            return None
        self._state = self._outside
        return []

    def _after_listed(self, text: str) -> list[Piece] | None:
        if not text:
            return None
        self._opening = ""
        if text.startswith(","):
            self._text, self._state = text[1:], self._before_call
        else:
            self._text = text.removeprefix("]")
            self._state, self._is_first = self._outside, True
        return []

    def _give_up(self) -> list[Piece]:
        """What began like a call is text."""
        text, self._opening, self._call = self._opening, "", None
        if not self._form.begin:
            self._state = self._plain
            return self._as_text(text) if text else []
        self._state, self._is_first = self._outside, True
        return self._as_text(text)

    def _as_text(self, text: str, is_before_call: bool = False) -> list[Piece]:
        """The text without white space beside calls; that at its end may turn out to be such."""
        text = self._blanks + text
        if self.num_calls:
            text = text.lstrip()
        solid = text.rstrip()
        self._blanks = "" if is_before_call else text[len(solid) :]
        return [solid] if solid else []


class _Call:
    """One call: an object, up to the bracket that closes it."""

    def __init__(self, form: ToolFormat) -> None:
        self._form = form
        self.raw = ""
        self.name: str | None = None
        self.is_complete = False
        self.is_bad = False
        self._depth = 0
        self._in_string = self._is_escaped = False
        self._start: int | None = None
        """Where the arguments begin, if they can go out as they come."""
        self._end: int | None = None
        self._sent = 0
        self._is_named = False

    def push(self, text: str) -> str:
        """Take what belongs to the call and return the rest."""
        for place, character in enumerate(text):
            self._see(character)
            if self._depth == 0:
                self.is_complete = True
                self._read_whole()
                return text[place + 1 :]
            if self._start is None:
                self._look_for_arguments()
            elif self._end is None and self._depth == 1 and not self._in_string:
                self._end = len(self.raw)
        return ""

    def take(self, index: int) -> list[ToolCallDelta]:
        """What is new of the call."""
        if self.name is None or self.is_bad:
            return []
        new = ""
        if self._start is not None:
            end = len(self.raw) if self._end is None else self._end
            new = self.raw[self._start + self._sent : end]
            self._sent += len(new)
        if not self._is_named:
            self._is_named = True
            return [ToolCallDelta(index, new_id(self._form), self.name, new)]
        return [ToolCallDelta(index, None, None, new)] if new else []

    def _see(self, character: str) -> None:
        self.raw += character
        if self._in_string:
            if self._is_escaped:
                self._is_escaped = False
            elif character == "\\":
                self._is_escaped = True
            elif character == '"':
                self._in_string = False
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1

    def _look_for_arguments(self) -> None:
        if self._depth == 2 and self.raw.endswith("{") and len(self.raw) <= MAX_HEAD_CHARACTERS:
            head = HEAD.match(self.raw)
            if head is not None and head.end() == len(self.raw) - 1:
                self.name, self._start = head[1], head.end()

    def _read_whole(self) -> None:
        """Read a call whose arguments did not go out as they came."""
        if self._start is not None:
            return
        try:
            read = json.loads(self.raw)
        except (ValueError, RecursionError):
            self.is_bad = True
            return
        name, arguments = read.get("name"), read.get("arguments", read.get("parameters"))
        if isinstance(arguments, str):  # some write the object as a text
            arguments = _loaded(arguments)
        is_call = self._form.begin or "arguments" in read or "parameters" in read
        if not (isinstance(name, str) and name and is_call):
            self.is_bad = True
        elif arguments is None:
            self.name, self.raw, self._start, self._end = name, "{}", 0, 2
        elif isinstance(arguments, dict):
            self.name, self.raw, self._start = name, json.dumps(arguments, ensure_ascii=False), 0
            self._end = len(self.raw)
        else:
            self.is_bad = True


def new_id(form: ToolFormat) -> str:
    """A new id of a call."""
    if form.id_characters is None:
        return f"call_{secrets.token_hex(12)}"
    letters = string.ascii_letters + string.digits
    return "".join(secrets.choice(letters) for _ in range(form.id_characters))


def read_calls(form: ToolFormat, text: str) -> list[tuple[str, str]]:
    """The name and the arguments of each call in a whole text."""
    reader = CallReader(form)
    calls: list[tuple[str, str]] = []
    for piece in [*reader.push(text), *reader.finish()]:
        if isinstance(piece, ToolCallDelta):
            if piece.name is not None:
                calls.append((piece.name, ""))
            name, arguments = calls[-1]
            calls[-1] = (name, arguments + piece.arguments)
    return calls


def _loaded(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _num_begun(text: str, mark: str) -> int:
    """How many of the last characters could begin a mark."""
    longest = min(len(text), len(mark) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(mark[:n])), 0)
