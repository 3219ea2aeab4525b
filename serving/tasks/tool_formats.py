"""The forms in which models write calls of tools, and which of them a chat template writes.

A model has learnt the form that its own chat template gives to calls in the history. So a template
is asked to write one, and the form is the one whose reader finds that call in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from serving.generator.json_schema import ANY_OBJECT, schema_rule
from serving.seams import Tool, ToolUse
from serving.tasks.bounded_rendering import render_bounded
from serving.tasks.chat_template import names_used


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How calls are written: ``begin``, an object, ``end``; in a list, objects between brackets.

    Attributes:
        name: Of the family.
        begin: Stands before a call, or before the list; empty where a call is the whole answer.
        end: Stands after a call.
        arguments: Key of the arguments.
        is_list: Whether one ``begin`` is followed by a list of calls.
        between: Stands between two calls.
        space: Stands between ``begin``, the object and ``end``.
        optional_begin: May stand before a call that is the whole answer.
        id_characters: Of the ids of calls, letters and digits; the template refuses others.
    """

    name: str
    begin: str
    end: str
    arguments: str
    is_list: bool = False
    between: str = ""
    space: str = ""
    optional_begin: str = ""
    id_characters: int | None = None

    @property
    def marks(self) -> tuple[str, ...]:
        """What tells a call from text; a tokenizer may have special tokens of these names."""
        return tuple(filter(None, (self.begin, self.end, self.optional_begin)))


FORMATS = (
    ToolFormat("hermes", "<tool_call>", "</tool_call>", "arguments", between="\n", space="\n"),
    ToolFormat("mistral", "[TOOL_CALLS]", "", "arguments", True, ", ", id_characters=9),
    ToolFormat("llama3", "", "", "parameters", between="; ", optional_begin="<|python_tag|>"),
)
"""Hermes and Qwen, Mistral's third tokenizer, Llama 3.1 and later."""

BRACKET = '" "? " "? "["'
"""Opens a list; some tokenizers put a space of their own after a special token."""

PROBE = {"type": "function", "id": "abcde1234"}
PROBE_NAME, PROBE_ARGUMENTS = "look_up_probe", {"city": "Paris"}
PROBE_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": PROBE_NAME,
        "description": "Look something up.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}

Read = Callable[[ToolFormat, str], list[tuple[str, str]]]
"""The names and arguments of the calls in a whole text."""


def find_format(
    template: str, variables: Mapping[str, str], read: Read
) -> tuple[ToolFormat | None, str]:
    """Find the form in which a chat template writes calls.

    Args:
        template: Its source.
        variables: What it sees beside the messages.
        read: Finds calls in a text.

    Returns:
        The form; or None, and why there is none.
    """
    try:
        if "tools" not in names_used(template):
            return None, "the model's chat template has no place for tools"
        written = _written_call(template, variables)
    except Exception as error:  # whatever the template raises
        return None, f"the model's chat template writes no call of a tool: {error}"
    for form in FORMATS:
        if [(n, json.loads(a)) for n, a in read(form, written)] == [(PROBE_NAME, PROBE_ARGUMENTS)]:
            return form, ""
    known = ", ".join(form.name for form in FORMATS)
    return None, f"the model's chat template writes calls in a form that is not known here: {known}"


def _written_call(template: str, variables: Mapping[str, str]) -> str:
    """What a template writes for an answer that is a call."""
    question: dict[str, Any] = {"role": "user", "content": "question"}
    function = {"name": PROBE_NAME, "arguments": PROBE_ARGUMENTS}
    answer = {"role": "assistant", "content": "", "tool_calls": [{**PROBE, "function": function}]}
    before = render_bounded(template, variables, [question], tools=[PROBE_TOOL])
    after = render_bounded(template, variables, [question, answer], False, tools=[PROBE_TOOL])
    if PROBE_NAME not in after:
        raise TemplateError("it leaves calls out")
    pairs = enumerate(zip(before, after, strict=False))
    return after[next((i for i, (a, b) in pairs if a != b), len(before)) :]


def answer_grammar(
    form: ToolFormat | None,
    use: ToolUse | None,
    schema: Mapping[str, Any] | None,
    special: Mapping[str, int],
) -> str | None:
    """The grammar of an answer, in llguidance's Lark; None if it is free.

    Args:
        form: How calls are written; not None if ``use`` is not.
        use: Tools that may, or must, be called.
        schema: What an answer that is no call follows.
        special: Ids of the marks that are special tokens.
    """
    if use is None:
        return None if schema is None else f"start: answer\nanswer: {schema_rule(schema)}\n"
    assert form is not None
    calls = _Calls(form, use, special)
    if use.must_call:
        return f"start: calls\n{calls.rules()}"
    if schema is not None:
        return f"start: answer | calls\nanswer: {schema_rule(schema)}\n{calls.rules()}"
    if any(tool.is_strict for tool in use.callable):
        return calls.between_text()
    return None


@dataclass(frozen=True, slots=True)
class _Calls:
    """Writes the rules of calls."""

    form: ToolFormat
    use: ToolUse
    special: Mapping[str, int]

    def rules(self) -> str:
        """Rules of ``calls``: one or more, and nothing else."""
        form = self.form
        more = self._more()
        if form.is_list:
            whole = f'{self._mark(form.begin)} {BRACKET} call{more} "]"'
        else:
            whole = f"call{more}"
        names = " | ".join(f"call_{number}" for number in range(len(self.use.callable)))
        return f"calls: {whole}\ncall: {names}\n" + "".join(self._call_rules(self._one))

    def between_text(self) -> str:
        """A whole grammar: any text, with calls in it."""
        form = self.form
        text = "TEXT: /(.|\\n)*/\n"
        if not form.begin:  # a call is the whole answer, and begins as no other text does
            other = "TEXT: /([^{<]|\\n)(.|\\n)*/\n"
            return f"start: TEXT? | calls\n{other}{self.rules()}"
        if form.begin in self.special:
            head = f"head: TEXT {self._mark(form.begin)}\n"
        else:
            head = f"head[lazy]: TEXT {json.dumps(form.begin)}\n"
        after_head = self._list_after_head() if form.is_list else "call_after_head"
        names = " | ".join(f"call_{number}" for number in range(len(self.use.callable)))
        rules = "".join(self._call_rules(self._one if form.is_list else self._after_head))
        many = "*" if self.use.is_parallel and not form.is_list else "?"
        return (
            f"start: (head {after_head}){many} TEXT\n{text}{head}"
            f"{'call' if form.is_list else 'call_after_head'}: {names}\n{rules}"
        )

    def _more(self) -> str:
        return f" ({json.dumps(self.form.between)} call)*" if self.use.is_parallel else ""

    def _list_after_head(self) -> str:
        return f'{BRACKET} call{self._more()} "]"'

    def _call_rules(self, write: Callable[[Tool, str], str]) -> Sequence[str]:
        every = self.use.must_call
        return [
            f"call_{number}: {write(tool, f'arguments_{number}')}\n"
            f"arguments_{number}: "
            f"{schema_rule(tool.parameters if every or tool.is_strict else ANY_OBJECT)}\n"
            for number, tool in enumerate(self.use.callable)
        ]

    def _one(self, tool: Tool, arguments: str) -> str:
        form = self.form
        begin = "" if form.is_list or not form.begin else f"{self._mark(form.begin)} "
        return begin + self._after_head(tool, arguments)

    def _after_head(self, tool: Tool, arguments: str) -> str:
        form = self.form
        name = json.dumps(tool.name)
        space = f"{json.dumps(form.space)} " if form.space else ""
        head = json.dumps(f'{{"name": {name}, "{form.arguments}": ')
        end = f" {space}{self._mark(form.end)}" if form.end else ""
        return f'{space}{head} {arguments} "}}"{end}'

    def _mark(self, mark: str) -> str:
        token = self.special.get(mark)
        return json.dumps(mark) if token is None else f"<[{token}]>"
