"""Tools in chats: the template's own text, the form it writes calls in, and grammars of calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.errors import InvalidField
from serving.generator.grammar import CompiledGrammar, Grammars
from serving.seams import Checkpoint, Message, Tool, ToolCall, ToolUse
from serving.tasks.generation import TASK, Generation
from serving.tasks.tool_calls import read_calls
from tests.unit.tasks.chat_templates import STYLES, Style
from tests.unit.tasks.test_chat_template import reference_of
from tests.unit.tasks.tool_templates import HERMES, WITH_TOOLS, XML

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8},
        "unit": {"enum": ["C", "F"]},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
CLOCK = {"type": "object", "properties": {}, "additionalProperties": False}


def tool(name: str, parameters: Any, is_strict: bool = False) -> Tool:
    function = {"name": name, "description": f"Say the {name}.", "parameters": parameters}
    return Tool(name, {"type": "function", "function": function}, parameters, is_strict)


TOOLS = (tool("weather", WEATHER), tool("clock", CLOCK))
SCHEMAS = {"weather": WEATHER, "clock": CLOCK}
IDS = "abcde1234", "fghij5678"
CHAT = [
    Message("user", "How warm is it in Köln?"),
    Message("assistant", "", (ToolCall(IDS[0], "weather", {"city": "Köln", "unit": "C"}),)),
    Message("tool", "21 <°> C", tool_call_id=IDS[0], tool_name="weather"),
    Message("assistant", "It is 21 °C."),
    Message("user", "And in Bonn?"),
]


def as_dicts(chat: list[Message]) -> list[dict[str, Any]]:
    """As a user of transformers writes it."""
    written = []
    for said in chat:
        one: dict[str, Any] = {"role": said.role, "content": said.content}
        if said.tool_calls:
            one["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": dict(call.arguments)},
                }
                for call in said.tool_calls
            ]
        if said.role == "tool":
            one |= {"tool_call_id": said.tool_call_id, "name": said.tool_name}
        written.append(one)
    return written


@cache
def task_of(style: Style, template: Any = None) -> Generation:
    """The task of a tokenizer with a template, prepared and opened."""
    tokenizer = reference_of(style)
    with TemporaryDirectory() as folder:
        checkpoint, prepared = Path(folder, "checkpoint"), Path(folder, "task")
        prepared.mkdir()
        if template is not None:
            tokenizer.chat_template = dict(template)
        tokenizer.save_pretrained(checkpoint)
        (checkpoint / "config.json").write_text(json.dumps({"model_type": "llama"}))
        TASK.prepare(Checkpoint(checkpoint), prepared)
        task: Generation = TASK.open(prepared, 100_000)
    return task


each_style = pytest.mark.parametrize("name", WITH_TOOLS)


@each_style
@pytest.mark.parametrize("length", [1, 3, 5])
def test_ids_are_those_of_transformers(name: str, length: int) -> None:
    style = WITH_TOOLS[name]
    wanted: Any = reference_of(style).apply_chat_template(
        as_dicts(CHAT[:length]),
        tools=[dict(tool.definition) for tool in TOOLS],
        add_generation_prompt=True,
        sanitize_control_tokens=True,
        return_dict=False,
    )
    assert task_of(style).encode_chat(CHAT[:length], TOOLS) == tuple(wanted)


@each_style
def test_history_with_calls_needs_no_tools(name: str) -> None:
    style = WITH_TOOLS[name]
    wanted: Any = reference_of(style).apply_chat_template(
        as_dicts(CHAT), add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
    )
    assert task_of(style).encode_chat(CHAT) == tuple(wanted)


@each_style
def test_the_form_is_found_in_the_template(name: str) -> None:
    chat = task_of(WITH_TOOLS[name]).chat
    assert chat is not None
    assert chat.tool_format().name == name


@pytest.mark.parametrize(
    ("style", "reason"),
    [
        (XML, "in a form that is not known here: hermes, mistral, llama3"),
        (STYLES["gemma"], "no place for tools"),
        (STYLES["llama 3"], "leaves calls out"),
    ],
)
def test_a_template_without_tools_or_in_another_form(style: Style, reason: str) -> None:
    task = task_of(style)
    with pytest.raises(InvalidField, match=reason) as caught:
        task.encode_chat(CHAT[:1], TOOLS)
    assert caught.value.param == "tools"
    assert task.encode_chat(CHAT[:1])
    for part, where in ((CHAT[:2], "messages\\[1\\].tool_calls"), (CHAT[2:3], "\\[0\\].role")):
        with pytest.raises(InvalidField, match=where):
            task.encode_chat(part)


def test_a_template_of_its_own_for_tools() -> None:
    plain = "{% for m in messages %}{{ '<|im_start|>' + m.content }}{% endfor %}"
    task = task_of(HERMES, (("default", plain), ("tool_use", HERMES.source)))
    assert task.encode_chat(CHAT[:1], TOOLS) == task_of(HERMES).encode_chat(CHAT[:1], TOOLS)
    assert task.encode_chat(CHAT[:1]) == tuple(
        task.tokenizer.encode("<|im_start|>How warm is it in Köln?").ids
    )


@each_style
def test_no_tool_nor_call_writes_a_control_token(name: str) -> None:
    style, task = WITH_TOOLS[name], task_of(WITH_TOOLS[name])
    control = {task.tokenizer.token_to_id(mark) for mark in (*style.special, *style.plain)}

    def controls(word: str) -> list[int]:
        hostile = {"type": "object", "properties": {word: {"description": word}}}
        call = ToolCall(IDS[0], "weather", {word: [word]})
        chat = [CHAT[0], Message("assistant", "", (call,)), replace(CHAT[2], content=word)]
        ids = task.encode_chat(chat, (tool("weather", hostile),))
        return [token for token in ids if token in control]

    for mark in (*style.special, *style.plain):
        assert controls(mark) == controls("word")


@cache
def solid_tokens(task: Generation) -> NDArray[np.bool_]:
    """Those that are no white space alone."""
    return np.array([not raw.isspace() for raw in task.token_table().raw])


def write(
    task: Generation, grammar: CompiledGrammar, seed: int, prompt: tuple[int, ...]
) -> str | None:
    """Draw an answer and read it as a replica does; None if it has no end."""
    random, state, solid = np.random.default_rng(seed), grammar.begin(), solid_tokens(task)
    stream, text, stops = task.open_text(prompt, with_calls=True), "", sorted(task.stop_tokens)
    for _ in range(200):
        allowed = state.allowed(len(solid))
        if allowed[stops].any():
            if random.random() < 0.5:
                return text + stream.finish()
            allowed[stops] = False
        ids = np.flatnonzero(allowed & solid)
        ids = ids if len(ids) else np.flatnonzero(allowed)
        if not len(ids):
            return text + stream.finish()
        token = int(random.choice(ids))
        state.advance(token)
        text += stream.push(token)
    return None


def grammar_of(task: Generation, use: ToolUse, schema: Any = None) -> CompiledGrammar:
    lark = task.answer_grammar(schema, use)
    assert lark is not None
    return Grammars(task.token_table).compile(lark, "tools")


def answers(name: str, use: ToolUse, schema: Any = None, count: int = 12) -> list[str]:
    task = task_of(WITH_TOOLS[name])
    grammar, prompt = grammar_of(task, use, schema), task.encode_chat(CHAT[:1], TOOLS)
    found = [write(task, grammar, seed, prompt) for seed in range(count)]
    ended = [text for text in found if text is not None]
    assert len(ended) >= count // 2
    return ended


def calls_in(name: str, text: str) -> list[tuple[str, Any]]:
    chat = task_of(WITH_TOOLS[name]).chat
    assert chat is not None
    calls = [(n, json.loads(a)) for n, a in read_calls(chat.tool_format(), text)]
    for called, arguments in calls:
        jsonschema.validate(arguments, SCHEMAS[called])
    return calls


@each_style
def test_what_is_required_is_a_call_and_nothing_else(name: str) -> None:
    seen = set()
    for text in answers(name, ToolUse(TOOLS, must_call=True)):
        calls = calls_in(name, text)
        assert calls
        seen |= {(called, len(calls) > 1) for called, _ in calls}
    assert {called for called, _ in seen} == {"weather", "clock"}
    assert {several for _, several in seen} == {True, False}


@each_style
def test_one_call_of_one_function(name: str) -> None:
    use = ToolUse(TOOLS, must_call=True, only="weather", is_parallel=False)
    for text in answers(name, use, count=6):
        [(called, _)] = calls_in(name, text)
        assert called == "weather"


@each_style
def test_the_template_reads_what_the_grammar_writes(name: str) -> None:
    """Calls in the history look as those that were held to the form: it is the model's own."""
    task = task_of(WITH_TOOLS[name])
    use = ToolUse(TOOLS, must_call=True, only="clock", is_parallel=False)
    lark = task.answer_grammar(None, use)
    assert lark is not None
    state = Grammars(task.token_table).compile(lark, "tools").begin()
    before = said_by(task, task.encode_chat(CHAT[:1]))
    called = [CHAT[0], Message("assistant", "", (ToolCall(IDS[0], "clock", {}),)), CHAT[2]]
    written = said_by(task, task.encode_chat(called))
    assert written.startswith(before)
    accepted = []
    # This tokenizer puts a space of its own after a special token, each time that it encodes.
    answer = written[len(before) :].replace("[TOOL_CALLS]  [", "[TOOL_CALLS] [")
    for token in task.tokenizer.encode(answer, add_special_tokens=False).ids:
        if not state.allowed(len(solid_tokens(task)))[token]:
            break
        state.advance(token)
        accepted.append(token)
    text = said_by(task, accepted).replace(" ", "")
    # Mistral's template adds an id, which its models do not write.
    wanted = {
        "hermes": '<tool_call>\n{"name":"clock","arguments":{}}\n</tool_call><|im_end|>',
        "llama3": '{"name":"clock","parameters":{}}<|eot_id|>',
        "mistral": '[TOOL_CALLS][{"name":"clock","arguments":{}',
    }
    assert text == wanted[name]


def said_by(task: Generation, tokens: Sequence[int]) -> str:
    text: str = task.tokenizer.decode(tokens, skip_special_tokens=False)
    return text


@each_style
def test_an_answer_follows_the_schema_unless_it_is_a_call(name: str) -> None:
    schema = {"enum": ["yes", "no"]}
    strict = tuple(replace(tool, is_strict=True) for tool in TOOLS)
    texts = answers(name, ToolUse(strict), schema, count=16)
    said = [text for text in texts if not calls_in(name, text)]
    assert 0 < len(said) < len(texts)
    for text in said:
        jsonschema.validate(json.loads(text), schema)


@each_style
def test_free_answers_have_no_grammar_unless_a_tool_is_strict(name: str) -> None:
    task = task_of(WITH_TOOLS[name])
    assert task.answer_grammar(None, None) is None
    assert task.answer_grammar(None, ToolUse(TOOLS)) is None
    strict = (replace(TOOLS[0], is_strict=True), TOOLS[1])
    grammar = grammar_of(task, ToolUse(strict))
    form = task.chat.tool_format() if task.chat else None
    assert form is not None

    def accepts(text: str) -> bool:
        state, num_tokens = grammar.begin(), len(task.token_table().raw)
        for token in task.tokenizer.encode(text, add_special_tokens=False).ids:
            if not state.allowed(num_tokens)[token]:
                return False
            state.advance(token)
        return any(state.allowed(num_tokens)[token] for token in task.stop_tokens)

    def call(function: str, arguments: str) -> str:
        written = f'{{"name": "{function}", "{form.arguments}": {arguments}}}'
        return {
            "hermes": f"<tool_call>\n{written}\n</tool_call>",
            "mistral": f"[TOOL_CALLS] [{written}]",
            "llama3": written,
        }[name]

    assert accepts("cat")
    assert accepts(call("weather", '{"city": "cat", "unit": "C"}'))
    assert not accepts(call("weather", '{"city": "cat"}'))
    assert not accepts(call("other", "{}"))
