"""Masks against texts that were listed beforehand, and against the ``jsonschema`` package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jsonschema
import numpy as np
import pytest

from serving.errors import InvalidField
from serving.generator import grammar as grammar_module
from serving.generator.grammar import MAX_GRAMMAR_CHARACTERS, CompiledGrammar, Grammars
from serving.generator.json_schema import ANY_OBJECT, schema_rule
from serving.seams import TokenTable

PIECES = [b'{"', b'":', b"tru", b"true", b'"a', b'ab"', b"\xc3", b"\xa9", b'\xa9"', b"[1", b"]}"]
UNKNOWN, SPECIAL, *STOPS = range(256 + len(PIECES), 256 + len(PIECES) + 4)
RAW = [*(bytes([byte]) for byte in range(256)), *PIECES, b"", b'"', b"</s>", b"<|end|>"]
TABLE = TokenTable(RAW, frozenset({SPECIAL, *STOPS}), frozenset(STOPS))
NUM_LOGITS = len(RAW) + 9
"""Models pad their vocabularies."""

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["é", 'b"c', 1.5]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"left": {"$ref": "#/$defs/node"}, "value": {"type": "boolean"}},
            "required": ["value"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
EITHER = {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^a{1,3}b?$"}]}


def compiled(schema: Any, table: TokenTable = TABLE) -> CompiledGrammar:
    lark = f"start: answer\nanswer: {schema_rule(schema)}"
    return Grammars(lambda: table).compile(lark, "response_format")


def write(grammar: CompiledGrammar, seed: int, most: int = 400) -> bytes | None:
    """Choose among the allowed at random, seldom a blank; None if there was no end."""
    random, state, text = np.random.default_rng(seed), grammar.begin(), b""
    for _ in range(most):
        allowed = np.flatnonzero(state.allowed(NUM_LOGITS))
        solid = [token for token in allowed if token >= 256 or not chr(token).isspace()]
        token = int(random.choice(solid or allowed))
        assert token not in (UNKNOWN, SPECIAL)
        assert token < len(RAW)
        state.advance(token)
        if token in STOPS:
            return text
        text += RAW[token]
    return None


@pytest.mark.parametrize("schema", [PERSON, TREE, EITHER, ANY_OBJECT])
def test_what_is_written_follows_the_schema(schema: Any) -> None:
    grammar = compiled(schema)
    texts = [text for seed in range(40) if (text := write(grammar, seed)) is not None]
    assert len(set(texts)) > 3
    for text in texts:
        jsonschema.validate(json.loads(text.decode()), schema)


LISTED: list[tuple[Any, Sequence[str]]] = [
    ({"enum": ["a", "ab", "é", True, 12]}, ['"a"', '"ab"', '"é"', "true", "12"]),
    ({"const": None}, ["null"]),
    ({"type": "boolean"}, ["true", "false"]),
]


@pytest.mark.parametrize(("schema", "texts"), LISTED)
def test_a_token_is_allowed_where_a_text_goes_on_with_it(schema: Any, texts: Sequence[str]) -> None:
    grammar, wanted = compiled(schema), [text.encode() for text in texts]
    beginnings = {text[:end] for text in wanted for end in range(len(text) + 1)}
    for beginning in beginnings:
        state = grammar.begin()
        for byte in beginning:
            state.advance(byte)
        expected = {
            token
            for token, raw in enumerate(RAW)
            if raw and token not in TABLE.special and beginning + raw in beginnings
        }
        if beginning in wanted:
            expected |= set(STOPS)
        # An escaped character says the same as the character.
        found = {t for t in np.flatnonzero(state.allowed(NUM_LOGITS)) if RAW[t] != b"\\"}
        assert found == expected, beginning


def test_texts_that_begin_alike_do_not_touch_each_other() -> None:
    grammar = compiled({"enum": ["ab", "ac"]})
    one, other = grammar.begin(), grammar.begin()
    for byte in b'"ab':
        one.advance(byte)
    assert np.flatnonzero(other.allowed(256)).tolist() == [ord('"')]
    assert np.flatnonzero(one.allowed(256)).tolist() == [ord('"')]


def test_blanks_come_to_an_end() -> None:
    state = compiled(ANY_OBJECT).begin()
    state.advance(ord("{"))
    for _ in range(40):
        assert state.allowed(256)[ord("\n")]
        state.advance(ord("\n"))
    allowed = state.allowed(256)
    assert not any(allowed[ord(blank)] for blank in " \t\r\n")
    assert allowed[ord('"')]
    assert allowed[ord("}")]


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"if": {"type": "string"}, "then": {"minLength": 3}}, "if"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"type": "object", "propertyNames": {"pattern": "a"}}, "propertyNames"),
        ({"type": "array", "contains": {"type": "string"}}, "contains"),
        ({"type": "string", "format": "postcode"}, "postcode"),
        ({"type": "string", "pattern": "a(?=b)"}, "regex"),
        ({"type": "text"}, "text"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum"),
        ({"$ref": "#/$defs/none"}, "none"),
        ({"$ref": "https://example.org/schema.json"}, "example.org"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf"),
        ({"type": "integer", "multipleOf": 982451653}, "fuel"),
    ],
)
def test_what_is_not_supported_is_named(schema: Any, named: str) -> None:
    with pytest.raises(InvalidField) as caught:
        compiled(schema)
    assert caught.value.param == "response_format"
    assert str(caught.value).startswith("response_format: ")
    assert named in str(caught.value)
    assert "at 2" not in str(caught.value)


def test_a_pattern_that_takes_too_much_work_ends_its_own_request_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It needs a state for each set of places at which an ``a`` was."""
    costly = {"type": "string", "pattern": "^.*a.{40}$"}
    monkeypatch.setattr(grammar_module, "MAX_STATES", 100)
    grammar = compiled(costly)
    random, state = np.random.default_rng(0), grammar.begin()
    state.advance(ord('"'))

    def write_on() -> None:
        for _ in range(400):
            state.allowed(NUM_LOGITS)
            state.advance(ord(random.choice(["a", "b"])))

    with pytest.raises(InvalidField, match="too much work") as caught:
        write_on()
    assert "too many states" in str(caught.value)
    state = compiled(costly).begin()
    assert state.allowed(NUM_LOGITS)[ord('"')]


def test_a_grammar_has_a_size() -> None:
    schema = {"enum": ["x" * MAX_GRAMMAR_CHARACTERS]}
    with pytest.raises(InvalidField, match="characters"):
        compiled(schema)


def test_a_model_without_a_stop_token() -> None:
    endless = TokenTable(RAW, TABLE.special, frozenset())
    with pytest.raises(InvalidField, match="no stop token"):
        compiled(ANY_OBJECT, endless)


def test_tokens_are_read_once_and_late() -> None:
    asked = []

    def read() -> TokenTable:
        asked.append(1)
        return TABLE

    grammars = Grammars(read)
    assert not asked
    for _ in range(2):
        grammars.compile('start: "a"', "response_format").begin()
    assert len(asked) == 1
