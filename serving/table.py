"""A visible table of names, which other people's packages may add to by an entry point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from serving.errors import ConfigError

Entry = TypeVar("Entry")


class Table(Generic[Entry]):
    """Public names and where their entries stand; nothing is imported before it is used.

    Args:
        what: What an entry is, for messages, e.g. ``recipe``.
        kind: Type of the entries.
        entries: Name to ``module:attribute``.
        group: Group of entry points by which an installed package adds more, e.g.
            ``quantserve.recipes``. It cannot replace an entry of ``entries``.
    """

    def __init__(
        self, what: str, kind: type[Entry], entries: Mapping[str, str], group: str
    ) -> None:
        self._what = what
        self._kind = kind
        self._entries = entries
        self._group = group

    @cached_property
    def _places(self) -> Mapping[str, str]:
        added = {point.name: point.value for point in entry_points(group=self._group)}
        return {**added, **self._entries} if added else self._entries

    def __iter__(self) -> Iterator[str]:
        """Every name, ours first."""
        return iter(dict.fromkeys([*self._entries, *self._places]))

    def __contains__(self, name: object) -> bool:
        """Whether there is such an entry."""
        return name in self._entries or name in self._places

    def __getitem__(self, name: str) -> Entry:
        """Import an entry.

        Raises:
            ConfigError: There is none of this name (the message lists the known ones), or what
                an installed package offers under it cannot be imported or is something else.
        """
        if name not in self:
            raise ConfigError(f"unknown {self._what} {name!r}; known: {', '.join(self)}")
        place = self._entries.get(name) or self._places[name]
        module, _, attribute = place.partition(":")
        try:
            entry = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            if name in self._entries:
                raise
            raise ConfigError(f"{self._what} {name!r}: {place} cannot be used: {error}") from error
        if not isinstance(entry, self._kind):
            raise ConfigError(f"{self._what} {name!r}: {place} is no {self._kind.__name__}")
        return entry
