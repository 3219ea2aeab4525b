"""Schemas that would take without end to compile are refused; others compile in no time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from serving.errors import InvalidField
from serving.generator.grammar import Grammars
from serving.generator.joint_patterns import (
    MAX_JOINT_PATTERNS,
    MAX_PATTERN_PROPERTIES,
    check_joint_patterns,
)
from serving.generator.json_schema import check_schema, schema_rule
from serving.seams import TokenTable

SLOW = [{"pattern": f"(a|b)*a(a|b){{{10 + i}}}"} for i in range(MAX_JOINT_PATTERNS + 1)]
BYTES = TokenTable(
    (*(bytes([byte]) for byte in range(256)), b""), frozenset({256}), frozenset({256})
)


def chain(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """Each refers to the next."""
    last = len(schemas) - 1
    named = {
        f"s{i}": schema if i == last else {**schema, "$ref": f"#/$defs/s{i + 1}"}
        for i, schema in enumerate(schemas)
    }
    return {"$defs": named, "$ref": "#/$defs/s0"}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda slow: {"type": "string", "allOf": slow},
        lambda slow: {"allOf": [{"allOf": slow[:5]}, {"allOf": slow[5:]}]},
        lambda slow: {"allOf": [{"properties": {"p": each}} for each in slow]},
        lambda slow: {"properties": {"p": {"items": {"allOf": slow}}}},
        lambda slow: {"allOf": [{"anyOf": [{"type": "null"}, each]} for each in slow]},
        lambda slow: {"allOf": [{"additionalProperties": each} for each in slow]},
        lambda slow: {"allOf": [{"prefixItems": [each]} for each in slow]},
        chain,
    ],
)
def test_patterns_that_meet_in_one_text_are_counted(wrap: Any) -> None:
    with pytest.raises(InvalidField, match=rf"s: {len(SLOW)} patterns .* at most 10"):
        check_joint_patterns(wrap(SLOW), "s", "s")
    check_joint_patterns(wrap(SLOW[1:]), "s", "s")


def test_patterns_of_different_texts_are_not() -> None:
    properties = {f"p{i}": {"type": "string", "pattern": f"^a{i}$"} for i in range(200)}
    choice = [{"type": "string", "pattern": f"^b{i}$"} for i in range(200)]
    check_joint_patterns({"properties": properties, "anyOf": choice}, "s", "s")


def test_a_schema_may_refer_to_itself() -> None:
    tree = {"pattern": "a", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}
    check_joint_patterns(tree, "s", "s")
    check_joint_patterns({"$ref": "#/nowhere"}, "s", "s")


def test_references_that_double_at_each_level_are_counted_once() -> None:
    names = [f"s{i}" for i in range(60)]
    below = dict(pairwise(names))
    defs = {
        name: {"properties": {p: {"$ref": f"#/$defs/{below.get(name, name)}"} for p in "ab"}}
        for name in names
    }
    check_joint_patterns({"$defs": defs, "$ref": "#/$defs/s0"}, "s", "s")


def test_names_that_follow_patterns_are_bounded() -> None:
    named: dict[str, Any] = {f"^x{i}y$": {} for i in range(MAX_PATTERN_PROPERTIES + 1)}
    with pytest.raises(InvalidField, match="101 patternProperties; at most 100"):
        check_schema({"type": "object", "patternProperties": named}, "response_format.schema")


def test_as_many_as_may_are_compiled_or_refused() -> None:
    """What takes longest of ten: it ends, which it would not with sixteen."""
    schema = {"type": "string", "allOf": SLOW[1:]}
    check_schema(schema, "response_format.schema")
    with pytest.raises(InvalidField, match="Unable to determine"):
        Grammars(lambda: BYTES).compile("start: " + schema_rule(schema), "response_format")
