"""Nothing of a schema is ignored silently."""

from __future__ import annotations

from typing import Any

import pytest

from serving.errors import InvalidField
from serving.generator.json_schema import MAX_DEPTH, MAX_SCHEMA_CHARACTERS, check_schema

PLACE = "response_format.json_schema.schema"


def refusal(schema: Any) -> str:
    with pytest.raises(InvalidField) as caught:
        check_schema(schema, PLACE)
    assert caught.value.param == "response_format"
    return str(caught.value)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"nullable": True}, ""),
        ({"minLenght": 3}, ""),
        ({"x-guidance": {"lenient": True}}, ""),
        ({"extends": {}}, ""),
        ({"properties": {"a": {"nullable": True}}}, ".properties.a"),
        ({"patternProperties": {"^a": {"nullable": True}}}, ".patternProperties.^a"),
        ({"$defs": {"a": {"nullable": True}}}, ".$defs.a"),
        ({"definitions": {"a": {"nullable": True}}}, ".definitions.a"),
        ({"items": {"nullable": True}}, ".items"),
        ({"items": [{}, {"nullable": True}]}, ".items[1]"),
        ({"prefixItems": [{"nullable": True}]}, ".prefixItems[0]"),
        ({"additionalProperties": {"nullable": True}}, ".additionalProperties"),
        ({"anyOf": [{"allOf": [{"oneOf": [{"nullable": 1}]}]}]}, ".anyOf[0].allOf[0].oneOf[0]"),
    ],
)
def test_a_word_that_would_be_ignored(schema: Any, place: str) -> None:
    message = refusal(schema)
    assert message.startswith(f"{PLACE}{place}: keyword ")
    assert message.endswith("is not supported; leave it out")


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"nullable": {"enum": [{"nullable": 1}]}, "not": {"const": {"foo": 1}}}},
        {"title": "T", "description": "d", "default": {"foo": 1}, "examples": [{"foo": 1}]},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "x-order": 3},
        {"additionalProperties": False, "items": True, "properties": {"a": True}},
        {"anyOf": [{"$ref": "#/$defs/a"}], "discriminator": {"propertyName": "kind"}},
    ],
)
def test_names_values_and_annotations_are_no_keywords(schema: Any) -> None:
    check_schema(schema, PLACE)


def test_depth() -> None:
    schema: dict[str, Any] = {}
    for _ in range(MAX_DEPTH):
        schema = {"items": schema}
    check_schema(schema, PLACE)
    assert "deep" in refusal({"items": schema})


def test_size() -> None:
    assert "characters" in refusal({"enum": ["x" * MAX_SCHEMA_CHARACTERS]})
