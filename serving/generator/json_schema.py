"""JSON schemas: what of them is understood here, and the grammar of their texts.

Which texts follow a schema is llguidance's to know; it refuses by name what it knows and does not
support (``not``, ``uniqueItems``, ``if`` and others). It ignores what it does not know, as JSON
Schema says, so such words are refused here: one that a client relies on, such as OpenAPI's
``nullable``, would silently mean nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from serving.errors import InvalidField
from serving.generator.joint_patterns import check_joint_patterns

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}

MAX_SCHEMA_CHARACTERS = 65_536
MAX_DEPTH = 64

WHITESPACE = r"[\x20\x0A\x0D\x09]{1,40}"
"""Between two signs of JSON. More than indentation needs, and not without end: small models are
known to go on with blanks for ever."""

SCHEMA = (
    *("items", "additionalProperties", "additionalItems", "contains", "not", "if", "then", "else"),
    *("propertyNames", "unevaluatedItems", "unevaluatedProperties"),
)
SCHEMAS = ("prefixItems", "items", "anyOf", "allOf", "oneOf")
SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
OTHERS = (
    *("type", "enum", "const", "$ref", "required", "pattern", "format", "multipleOf"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength"),
    *("minItems", "maxItems", "minProperties", "maxProperties"),
    # What llguidance refuses, in its own words.
    *("uniqueItems", "minContains", "maxContains", "dependentRequired", "dependencies"),
    *("$dynamicRef", "$recursiveRef"),
)
ANNOTATIONS = (
    *("$schema", "$id", "id", "$anchor", "$comment", "$vocabulary", "title", "description"),
    *("default", "example", "examples", "deprecated", "readOnly", "writeOnly", "discriminator"),
    *("contentEncoding", "contentMediaType", "contentSchema", "$dynamicAnchor"),
)
"""They restrict no text, or, of a discriminator, none that the rest of the schema allows."""

KEYWORDS = frozenset((*SCHEMA, *SCHEMAS, *SCHEMAS_BY_NAME, *OTHERS, *ANNOTATIONS))


def check_schema(schema: Mapping[str, Any], place: str) -> None:
    """Refuse a schema of which something would be ignored.

    Args:
        schema: A JSON schema.
        place: Where it stands in the request, for messages; up to the first dot it is the field.

    Raises:
        InvalidField: It is too large, has a keyword that is not known, or would take too long to
            compile.
    """
    field = place.partition(".")[0].partition("[")[0]
    waiting = [(place, schema, 0)]
    while waiting:
        where, found, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise InvalidField(f"{place}: nested more than {MAX_DEPTH} deep", param=field)
        if not isinstance(found, dict):
            continue  # true, false, or what llguidance refuses
        for keyword in found:
            if keyword not in KEYWORDS and (
                not keyword.startswith("x-") or keyword == "x-guidance"
            ):
                raise InvalidField(
                    f"{where}: keyword {keyword!r} is not supported; leave it out", param=field
                )
        waiting += [(place_, sub, depth + 1) for place_, sub in _subschemas(where, found)]
    size = len(json.dumps(schema))
    if size > MAX_SCHEMA_CHARACTERS:
        raise InvalidField(
            f"{place}: {size} characters; at most {MAX_SCHEMA_CHARACTERS}", param=field
        )
    check_joint_patterns(schema, place, field)


def schema_rule(schema: Mapping[str, Any]) -> str:
    """Right-hand side of a rule of llguidance's Lark: JSON texts that follow a checked schema."""
    options = {"whitespace_pattern": WHITESPACE, "lenient": False}
    return "%json " + json.dumps({**schema, "x-guidance": options})


def _subschemas(where: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for keyword in SCHEMA:
        if keyword in schema:
            yield f"{where}.{keyword}", schema[keyword]
    for keyword in SCHEMAS:
        if isinstance(listed := schema.get(keyword), list):
            for number, sub in enumerate(listed):
                yield f"{where}.{keyword}[{number}]", sub
    for keyword in SCHEMAS_BY_NAME:
        if isinstance(named := schema.get(keyword), dict):
            for name, sub in named.items():
                yield f"{where}.{keyword}.{name}", sub
