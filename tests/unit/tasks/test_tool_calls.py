"""Text and calls of an answer, however it is cut into pieces."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.seams import ToolCallDelta
from serving.tasks.tool_calls import CallReader
from serving.tasks.tool_formats import FORMATS

BY_NAME = {form.name: form for form in FORMATS}


def parted(
    form: str, text: str, cuts: tuple[int, ...] = (), is_parallel: bool = True
) -> tuple[str, list[tuple[str, str]]]:
    """The text of an answer and its calls, read in pieces that end at ``cuts``."""
    reader = CallReader(BY_NAME[form], is_parallel)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [p for start, end in pairwise(places) for p in reader.push(text[start:end])]
    pieces += reader.finish()
    calls: list[tuple[str, str]] = []
    said, ids = "", set()
    for piece in pieces:
        if isinstance(piece, str):
            said += piece
        elif piece.id is not None:
            assert piece.index == len(calls)
            assert piece.name is not None
            ids.add(piece.id)
            calls.append((piece.name, piece.arguments))
        else:
            assert piece.index == len(calls) - 1
            assert piece.name is None
            calls[-1] = (calls[-1][0], calls[-1][1] + piece.arguments)
    assert len(ids) == len(calls)
    return said, calls


F, G = ("f", '{"a": "}{\\"\\\\", "b": [{}, 1]}'), ("g", "{}")
CALL_F = f'{{"name": "f", "arguments": {F[1]}}}'
CALL_G = '{"name": "g", "arguments": {}}'
AS_TEXT = '{"name": "f", "arguments": ' + json.dumps(F[1]) + "}"
REORDERED = f'{{"arguments": {F[1]}, "name": "f"}}'

ANSWERS = [
    ("hermes", "Just text, 2 < 3, { and <tool", ("Just text, 2 < 3, { and <tool", [])),
    ("hermes", " \n ", (" \n ", [])),
    ("hermes", "Hi \n", ("Hi \n", [])),
    ("hermes", f"<tool_call>\n{CALL_F}\n</tool_call>", ("", [F])),
    ("hermes", f"<tool_call>{CALL_F}</tool_call>", ("", [F])),
    ("hermes", f"Well.\n\n<tool_call>\n{CALL_F}\n</tool_call>\n", ("Well.", [F])),
    (
        "hermes",
        f"<tool_call>\n{CALL_F}\n</tool_call>\n<tool_call>\n{CALL_G}\n</tool_call>",
        ("", [F, G]),
    ),
    ("hermes", f"<tool_call>\n{CALL_F}", ("", [F])),
    ("hermes", f"<tool_call>\n{CALL_F}</tool_call>Done.", ("Done.", [F])),
    ("hermes", '<tool_call>{"name": "f"}</tool_call>', ("", [("f", "{}")])),
    ("hermes", "<tool_call>\nf(1)\n</tool_call>", ("<tool_call>\nf(1)\n</tool_call>", [])),
    ("hermes", '<tool_call>\n{"name": 3}', ('<tool_call>\n{"name": 3}', [])),
    ("hermes", '<tool_call>\n{"name": "f", }', ('<tool_call>\n{"name": "f", }', [])),
    ("hermes", '<tool_call>\n{"na', ('<tool_call>\n{"na', [])),
    ("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": 1', ("", [("f", '{"a": 1')])),
    ("llama3", "Hello {there}", ("Hello {there}", [])),
    ("llama3", f'{{"name": "f", "parameters": {F[1]}}}', ("", [F])),
    ("llama3", f'<|python_tag|>{{"name": "f", "parameters": {F[1]}}}', ("", [F])),
    ("llama3", f'{{"type": "function", "name": "f", "parameters": {F[1]}}}', ("", [F])),
    (
        "llama3",
        f'{{"name": "f", "parameters": {F[1]}}}; {{"name": "g", "parameters": {{}}}}',
        ("", [F, G]),
    ),
    ("llama3", '{"name": "Ann", "age": 3}', ('{"name": "Ann", "age": 3}', [])),
    ("llama3", '{"a": 1} is JSON', ('{"a": 1} is JSON', [])),
    ("llama3", "<|python_tag|>print(1)", ("<|python_tag|>print(1)", [])),
    ("llama3", "<|py", ("<|py", [])),
    ("mistral", "Bonjour [TOOL", ("Bonjour [TOOL", [])),
    ("mistral", f"[TOOL_CALLS] [{CALL_F}]", ("", [F])),
    ("mistral", f"[TOOL_CALLS][{CALL_F}, {CALL_G}]", ("", [F, G])),
    (
        "mistral",
        f'[TOOL_CALLS] [{{"id": "abcde1234", "name": "f", "arguments": {F[1]}}}]',
        ("", [F]),
    ),
    ("mistral", "[TOOL_CALLS] nothing", ("[TOOL_CALLS] nothing", [])),
]


@pytest.mark.parametrize(("form", "text", "expected"), ANSWERS)
@given(cuts=st.lists(st.integers(0, 150), max_size=12).map(tuple))
def test_answers(form, text, expected, cuts) -> None:
    assert parted(form, text, cuts) == expected
    assert parted(form, text, tuple(range(len(text)))) == expected


@pytest.mark.parametrize("written", [AS_TEXT, REORDERED])
def test_other_ways_to_write_a_call(written: str) -> None:
    for text in (f"<tool_call>\n{written}\n</tool_call>", f"[TOOL_CALLS][{written}]"):
        form = "hermes" if text.startswith("<") else "mistral"
        said, [(name, arguments)] = parted(form, text)
        assert (said, name, json.loads(arguments)) == ("", "f", json.loads(F[1]))


def test_arguments_go_out_as_they_come() -> None:
    reader = CallReader(BY_NAME["hermes"])
    assert reader.push('So:\n<tool_call>\n{"name": "f", "argu') == ["So:"]
    [first] = reader.push('ments": {"city": "Pa')
    assert isinstance(first, ToolCallDelta)
    assert (first.index, first.name, first.arguments) == (0, "f", '{"city": "Pa')
    assert reader.push('ris"') == [ToolCallDelta(0, None, None, 'ris"')]
    assert reader.push("}}\n</tool_c") == [ToolCallDelta(0, None, None, "}")]
    assert reader.num_calls == 1
    assert reader.push("all>") == reader.finish() == []


@pytest.mark.parametrize("form", BY_NAME)
def test_one_call_and_no_more(form: str) -> None:
    key = BY_NAME[form].arguments
    one, two = (f'{{"name": "{name}", "{key}": {{}}}}' for name in "fg")
    texts = {
        "hermes": f"<tool_call>{one}</tool_call><tool_call>{two}</tool_call>",
        "llama3": f"{one}; {two}",
        "mistral": f"[TOOL_CALLS][{one}, {two}]",
    }
    assert parted(form, texts[form], is_parallel=False) == ("", [("f", "{}")])


def test_ids_fit_the_templates() -> None:
    for form in FORMATS:
        [call] = [
            piece
            for piece in CallReader(form).push(
                {"hermes": "<tool_call>", "mistral": "[TOOL_CALLS][", "llama3": ""}[form.name]
                + f'{{"name": "f", "{form.arguments}": {{}}}}'
            )
            if isinstance(piece, ToolCallDelta) and piece.id is not None
        ]
        assert call.id is not None
        if form.id_characters is not None:
            assert len(call.id) == form.id_characters
            assert call.id.isalnum()


def test_depth_without_end() -> None:
    text = '<tool_call>{"name": "f", "x": ' + "[" * 5_000 + "]" * 5_000 + "}</tool_call>"
    assert parted("hermes", text) == (text, [])
