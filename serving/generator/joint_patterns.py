"""How many patterns of a JSON schema one text has to follow at once: what compiling takes.

llguidance finds out whether any text follows all of them. That takes up to ten milliseconds for
eight patterns, a second for twelve and without end for sixteen, and no limit of its own bounds it
(``(a|b)*a(a|b){n}`` with sixteen lengths). Names of properties that follow patterns are compared
with each other, which takes a tenth of a second for a hundred and grows with the third power.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from serving.errors import InvalidField

MAX_JOINT_PATTERNS = 10
MAX_PATTERN_PROPERTIES = 100

ONE_OF = ("anyOf", "oneOf")
SCHEMAS_BELOW = ("items", "additionalProperties", "additionalItems", "contains")
LISTS_BELOW = ("prefixItems", "items")
NAMED_BELOW = ("properties", "patternProperties", "dependentSchemas")

Counts = list[int]
"""Most patterns of one text, by how many objects and lists it lies in."""


def check_joint_patterns(schema: Mapping[str, Any], place: str, field: str) -> None:
    """Refuse a schema that takes too long to compile.

    Two members of ``allOf`` are taken to speak of the same property wherever they have properties,
    so some schemas are refused that would compile.

    Args:
        schema: A JSON schema, not nested without end.
        place: Where it stands in the request.
        field: Its field there.

    Raises:
        InvalidField: More than ``MAX_JOINT_PATTERNS`` patterns may meet in one text, or there are
            more than ``MAX_PATTERN_PROPERTIES`` patterns of properties' names.
    """
    counting = _Counting(schema)
    joint = max(counting.of(schema), default=0)
    if joint > MAX_JOINT_PATTERNS:
        raise InvalidField(
            f"{place}: {joint} patterns and formats (allOf, $ref) may have to hold for one text; "
            f"at most {MAX_JOINT_PATTERNS}",
            param=field,
        )
    if counting.num_pattern_properties > MAX_PATTERN_PROPERTIES:
        raise InvalidField(
            f"{place}: {counting.num_pattern_properties} patternProperties; at most "
            f"{MAX_PATTERN_PROPERTIES}",
            param=field,
        )


class _Counting:
    """Counts of a schema's parts, each computed once however often it is referred to."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[int, Counts] = {}
        self.num_pattern_properties = 0

    def of(self, schema: object) -> Counts:
        if not isinstance(schema, Mapping):
            return []
        if id(schema) not in self._known:
            # Whoever meets it again below itself finds nothing more.
            self._known[id(schema)] = []
            self._known[id(schema)] = self._count(schema)
        return self._known[id(schema)]

    def _count(self, schema: Mapping[str, Any]) -> Counts:
        named = schema.get("patternProperties")
        self.num_pattern_properties += len(named) if isinstance(named, Mapping) else 0
        together = [[sum(word in schema for word in ("pattern", "format"))], self._below(schema)]
        together += [self.of(each) for each in _listed(schema, "allOf")]
        together += [_most([self.of(each) for each in _listed(schema, word)]) for word in ONE_OF]
        if isinstance(reference := schema.get("$ref"), str):
            together.append(self.of(_resolved(self._root, reference)))
        return [sum(counts) for counts in zip_longest(*together, fillvalue=0)]

    def _below(self, schema: Mapping[str, Any]) -> Counts:
        parts = [self.of(schema.get(word)) for word in SCHEMAS_BELOW]
        parts += [self.of(each) for word in LISTS_BELOW for each in _listed(schema, word)]
        for word in NAMED_BELOW:
            if isinstance(named := schema.get(word), Mapping):
                parts += [self.of(each) for each in named.values()]
        return [0, *_most(parts)]


def _most(counts: list[Counts]) -> Counts:
    return [max(at) for at in zip_longest(*counts, fillvalue=0)]


def _listed(schema: Mapping[str, Any], word: str) -> list[Any]:
    listed = schema.get(word)
    return listed if isinstance(listed, list) else []


def _resolved(root: Mapping[str, Any], reference: str) -> object:
    """What ``#/...`` points to; None if that is nothing, which llguidance refuses."""
    found: object = root
    for part in reference.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
