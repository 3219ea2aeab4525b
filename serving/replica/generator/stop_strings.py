"""Cuts a text that comes in pieces where a stop string is complete."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Says of each piece what may be sent, and when to stop.

    The first stop string to be complete ends the text, wherever the pieces' borders lie, as if
    each character were looked at as it comes; of several that are complete with the same
    character, the longest. What could still be the beginning of one is held back. A character
    costs a constant time on average (Knuth, Morris and Pratt, 1977), and no more text is kept
    than the longest stop string has.

    Args:
        stops: None of them empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._searches = [_Search(stop) for stop in stops]
        self._first_characters = {stop[0] for stop in stops}
        self._held = ""
        self.found = False
        """Whether a stop string was complete; no more pieces may follow."""

    def push(self, piece: str) -> str:
        """Return what may be sent now and was not before."""
        if not self._held and self._first_characters.isdisjoint(piece):
            return piece  # what most pieces are
        text = self._held + piece
        for end, character in enumerate(piece, len(self._held) + 1):
            complete = [search.length for search in self._searches if search.push(character)]
            if complete:
                self.found = True
                self._held = ""
                return text[: end - max(complete)]
        certain = len(text) - max(search.matched for search in self._searches)
        self._held = text[certain:]
        return text[:certain]

    def finish(self) -> str:
        """Return what was held back, at the end of a text without a stop string."""
        held, self._held = self._held, ""
        return held


class _Search:
    """Looks for one string; ``matched`` of its characters are what the text ends with now."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self._borders = _borders(wanted)
        self.length = len(wanted)
        self.matched = 0

    def push(self, character: str) -> bool:
        """Take the text's next character; return whether the string is complete with it."""
        while self.matched and self._wanted[self.matched] != character:
            self.matched = self._borders[self.matched - 1]
        if self._wanted[self.matched] == character:
            self.matched += 1
        return self.matched == self.length


def _borders(wanted: str) -> list[int]:
    """Of each beginning of ``wanted``, the length of its longest end that also begins it."""
    borders = [0] * len(wanted)
    length = 0
    for index in range(1, len(wanted)):
        while length and wanted[index] != wanted[length]:
            length = borders[length - 1]
        if wanted[index] == wanted[length]:
            length += 1
        borders[index] = length
    return borders
