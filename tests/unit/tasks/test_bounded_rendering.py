"""Templates of somebody who means harm end in bounds, and the next chat is rendered as ever."""

from __future__ import annotations

import os

import psutil
import pytest
from jinja2 import TemplateError

from serving.tasks.bounded_rendering import MAX_TEMPLATE_CHARACTERS, render_bounded
from serving.tasks.chat_template import render

MESSAGES = [{"role": "user", "content": "Hi, 日本 \ud83d <b>"}]
GOOD = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos }}{% endfor %}"

HOSTILE = {
    "nested loops": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "processor time",
    ),
    "a macro that doubles": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
        "{{ f(60) }}",
        "processor time",
    ),
    "a power": ("{{ 10 ** (10 ** 9) }}", "processor time"),
    "a power of constants in a branch": (
        "{% if 0 %}{{ 10 ** (10 ** 9) }}{% endif %}",
        "processor time",
    ),
    "a text that doubles": (
        "{% set n = namespace(t='a' * 99999) %}"
        "{% for i in range(40) %}{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t }}",
        "of memory",
    ),
    "lists in lists": (
        "{% set n = namespace(t=['a']) %}"
        "{% for i in range(40) %}{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.t }}",
        "of memory|processor time",
    ),
    "a long text": ("{{ 'a' * 10 ** 7 }}", "more than 8,388,608 characters"),
    "a width": ("{{ '%1000000000d' % 1 }}", "of memory"),
    "a macro without an end": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "too deep"),
    "deep parentheses": ("{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}", "too deep"),
    "no template": ("{% for %}", "Expected an expression"),
    "the sandbox": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "a long template": ("a" * (MAX_TEMPLATE_CHARACTERS + 1), "at most 1,048,576 are run"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused(name: str) -> None:
    template, reason = HOSTILE[name]
    with pytest.raises(TemplateError, match=reason):
        render_bounded(template, {}, MESSAGES)
    assert render_bounded(GOOD, {"eos": "."}, MESSAGES) == "user: Hi, 日本 \ud83d <b>."


def test_it_renders_what_is_rendered_here() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"a": [1, 2.5, None]}}}]
    template = "{{ tools | tojson }}{{ messages[0].content }}{{ add_generation_prompt }}{{ bos }}"
    for asks in (True, False):
        given = (template, {"bos": "<s>"}, MESSAGES, asks, tools)
        assert render_bounded(*given) == render(*given)


def test_its_process_takes_another_s_place_when_it_is_killed() -> None:
    assert render_bounded("a", {}, MESSAGES) == "a"
    [process] = [
        child
        for child in psutil.Process(os.getpid()).children()
        if any(part.endswith("chat_template.py") for part in child.cmdline())
    ]
    process.kill()
    process.wait()
    assert render_bounded("b", {}, MESSAGES) == "b"
