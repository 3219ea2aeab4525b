"""Chat templates: Jinja programs of a checkpoint that turn messages into one text.

What a template can see and do is what transformers gives it, since templates are written for that:
the same settings, filters, globals and tags, in a sandbox, because a checkpoint's template is code
of somebody else. ``tests/unit/tasks/test_chat_template.py`` compares the two.

Run as a program, this file is the process of ``bounded_rendering.py``: it answers JSON by JSON,
each after its length in eight bytes, and ends with its input. It imports jinja2, nothing heavier.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from math import ceil
from pathlib import Path
from typing import IO, Any, NoReturn

from jinja2 import Template, TemplateError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

CPU_S = 2
"""Processor time of one chat, which mostly takes a thousandth of a second."""

MEMORY_BYTES = 512 * 2**20
"""Beside what the process holds when it is started."""

MAX_CHARACTERS = 8 * 2**20
"""Of a rendered chat: four times the largest body."""

_LENGTH = struct.Struct("<Q")


def render(
    template: str,
    variables: Mapping[str, str],
    messages: Sequence[Mapping[str, Any]],
    asks_for_answer: bool = True,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Render messages with a template.

    Args:
        template: Its source.
        variables: What it sees besides: names of special tokens, e.g. ``bos_token``.
        messages: Each with ``role`` and ``content``, perhaps with ``tool_calls``, or
            ``tool_call_id`` and ``name``.
        asks_for_answer: Whether the text shall end where the answer begins.
        tools: Functions that may be called, in OpenAI's form.

    Raises:
        Exception: Whatever the template raises; most often ``jinja2.TemplateError``.
    """
    seen: dict[str, Any] = {
        **variables,
        "messages": [dict(message) for message in messages],
        "tools": list(tools) or None,
        "documents": None,
        "add_generation_prompt": asks_for_answer,
    }
    return _compiled(template).render(seen)


def names_used(template: str) -> set[str]:
    """Names that the template takes from outside.

    Raises:
        jinja2.TemplateSyntaxError: It is no template.
    """
    return meta.find_undeclared_variables(_environment().parse(template))


def literal_text(template: str) -> str:
    """Everything that the template itself may write: its text and its string constants.

    They are joined by a character that no token has, so that none is found across two of them.

    Raises:
        jinja2.TemplateSyntaxError: It is no template.
    """
    tree = _environment().parse(template)
    written = [node.data for node in tree.find_all(nodes.TemplateData)]
    written += [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    return "\0".join(written)


@cache
def _compiled(template: str) -> Template:
    return _environment().from_string(template)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationTag, LoopControlExtension],
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(
        raise_exception=_refuse,
        strftime_now=_now_as,
        dict=_DictMaker(),
        namespace=_PublicNamespace,
    )
    return environment


class _GenerationTag(Extension):
    """``{% generation %} … {% endgeneration %}``: marks answers for training; a scope, no more."""

    tags = {"generation"}  # noqa: RUF012 (as jinja2 declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _DictMaker:
    """Stands for ``dict``, whose own methods would change what the sandbox keeps from change."""

    def __call__(self, *arguments: Any, **named: Any) -> dict[Any, Any]:
        return dict(*arguments, **named)

    def fromkeys(self, *arguments: Any) -> dict[Any, Any]:
        return dict.fromkeys(*arguments)


class _PublicNamespace(Namespace):
    """A namespace without names that begin with an underscore."""

    def __init__(*arguments: Any, **named: Any) -> None:
        # ``self`` by place alone, so that a template may use the name.
        self, *rest = arguments
        names = dict(*rest, **named)
        for name in names:
            _check_public(name)
        Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_public(name)
        super().__setitem__(name, value)


def _check_public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no name with an underscore in front, as {name!r}")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own writes "<" as an escape, for HTML.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(reason: str) -> NoReturn:
    raise TemplateError(reason)


def _now_as(form: str) -> str:
    return datetime.now().strftime(form)


def write_message(pipe: IO[bytes], content: bytes) -> None:
    """Send one message to the other side, or back."""
    pipe.write(_LENGTH.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def read_message(pipe: IO[bytes]) -> bytes | None:
    """The next message; None if the other side has ended."""
    length = pipe.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(length)
    content: bytes = pipe.read(size)
    return content if len(content) == size else None


def _serve() -> None:
    """Answer one request after the other, each with the text, or with why there is none."""
    # Ctrl-C is for the service, which ends this process with its pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while (asked := read_message(sys.stdin.buffer)) is not None:
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (ceil(time.process_time()) + CPU_S, most))
        write_message(sys.stdout.buffer, _answer(asked))


def _answer(asked: bytes) -> bytes:
    try:
        text = render(*json.loads(asked))
        if len(text) <= MAX_CHARACTERS:
            return json.dumps([text, None]).encode()
        refusal = f"it writes more than {MAX_CHARACTERS:,} characters"
    except MemoryError:
        refusal = f"it takes more than {MEMORY_BYTES // 2**20} MiB of memory"
    except RecursionError:
        refusal = "it calls itself too deep"
    except Exception as error:  # a template is a program: it can raise anything
        refusal = str(error)[:MAX_CHARACTERS]
    return json.dumps([None, refusal]).encode()


if __name__ == "__main__":
    _serve()
