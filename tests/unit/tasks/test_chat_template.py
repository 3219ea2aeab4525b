"""Chats of any template become the text, and the token ids, that transformers makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateError
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from serving.errors import InvalidField
from serving.seams import Checkpoint, Message
from serving.tasks.chat_template import render
from serving.tasks.control_tokens import END, START
from serving.tasks.generation import TASK, Generation
from tests.unit.tasks.chat_templates import STYLES, Style
from tests.unit.tasks.tokenizers_by_kind import byte_fallback_tokenizer, smollm2_tokenizer

CHATS = {
    "one turn": [("user", "What is 2 + 2 < 5 & 'so' on?")],
    "system": [("system", " Be brief. \n"), ("user", "Hi")],
    "turns": [
        ("user", "  Bonjour, ça va?\n"),
        ("assistant", "<think>\nHm.\n</think>\n\nTrès bien 😀 "),
        ("user", "日本語で。\n\n\tThanks "),
    ],
    "answer last": [("user", "Hi"), ("assistant", "Hello </think> there")],
    "empty": [("user", "")],
    "only system": [("system", "{{ 7 * 6 }} {% raise %}")],
    "two in a row": [("user", "a"), ("user", "b")],
}

BASE_SPECIAL = set(smollm2_tokenizer().added_tokens_encoder) | {"<unk>", "<s>", "</s>", "<|end|>"}
"""Of the tokenizers that the styles extend."""

EMPTY = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({})))


@cache
def reference(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a style, as transformers has it."""
    return reference_of(STYLES[name])


def reference_of(style: Style) -> PreTrainedTokenizerFast:
    """See ``reference``."""
    backend = (
        smollm2_tokenizer().backend_tokenizer if style.is_byte_level else byte_fallback_tokenizer()
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(backend.to_str()),
        unk_token=None if style.is_byte_level else "<unk>",
        bos_token=style.special[0],
        eos_token=style.special[1],
        extra_special_tokens=list(style.special[2:]),
        chat_template=style.source,
    )
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in style.plain])
    return tokenizer


@cache
def task_of(name: str) -> Generation:
    """The task, prepared from a folder that transformers wrote and opened again."""
    with TemporaryDirectory() as folder:
        checkpoint, prepared = Path(folder, "checkpoint"), Path(folder, "task")
        prepared.mkdir()
        reference(name).save_pretrained(checkpoint)
        (checkpoint / "config.json").write_text(json.dumps({"model_type": "llama"}))
        TASK.prepare(Checkpoint(checkpoint), prepared)
        task: Generation = TASK.open(prepared, 100_000)
    return task


def dicts(chat: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in chat]


def messages(chat: list[tuple[str, str]]) -> list[Message]:
    return [Message(role, content) for role, content in chat]


def expected_text(name: str, chat: list[tuple[str, str]], asks: bool) -> str | None:
    """None if the template refuses the chat."""
    try:
        text: Any = reference(name).apply_chat_template(
            dicts(chat), tokenize=False, add_generation_prompt=asks
        )
    except TemplateError:
        return None
    return str(text)


def expected_ids(name: str, chat: list[tuple[str, str]]) -> tuple[int, ...] | None:
    """None if the template refuses the chat, or there is no way to write its tokens as text."""
    try:
        ids: Any = reference(name).apply_chat_template(
            dicts(chat), add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
        )
    except (TemplateError, ValueError):
        return None
    return tuple(ids)


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)
@pytest.mark.parametrize("name", STYLES)
def test_text_is_that_of_transformers(name: str, chat: list[tuple[str, str]], asks: bool) -> None:
    wanted = expected_text(name, chat, asks)
    settings = task_of(name).chat
    assert settings is not None
    if wanted is None:
        with pytest.raises(TemplateError):
            render(settings.template, settings.variables, dicts(chat), asks)
    else:
        assert render(settings.template, settings.variables, dicts(chat), asks) == wanted


@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)
@pytest.mark.parametrize("name", STYLES)
def test_ids_are_those_of_transformers(name: str, chat: list[tuple[str, str]]) -> None:
    wanted = expected_ids(name, chat)
    if wanted is None:
        with pytest.raises(InvalidField, match="template refuses"):
            task_of(name).encode_chat(messages(chat))
    else:
        assert task_of(name).encode_chat(messages(chat)) == wanted


def hostile_texts(style: Style) -> st.SearchStrategy[str]:
    """Texts of names of control tokens, parts of them, marks, and what templates look for."""
    names = [*style.special, *style.plain]
    halves = [part for name in names for part in (name[:3], name[3:]) if part]
    parts = [*names, *halves, START, END, START + names[1] + END, "</think>", "\n", " ", "a", "é"]
    return st.lists(st.sampled_from(parts), min_size=1, max_size=8).map("".join)


@pytest.mark.parametrize("name", STYLES)
@given(data=st.data())
def test_no_message_writes_a_control_token(name: str, data: st.DataObject) -> None:
    """The control tokens of a chat are those of the same chat with harmless texts."""
    style, task = STYLES[name], task_of(name)
    chat = [("user", data.draw(hostile_texts(style))), ("assistant", "ok"), ("user", "b")]
    chat[1] = ("assistant", data.draw(hostile_texts(style)))
    wanted = expected_ids(name, chat)
    if wanted is None:
        with pytest.raises(InvalidField):
            task.encode_chat(messages(chat))
        return
    ids = task.encode_chat(messages(chat))
    assert ids == wanted
    assert task.chat is not None
    template = reference(name).get_chat_template()
    names = reference(name)._get_control_tokens(template)
    assert {*style.special} <= {*names} <= {*style.special, *style.plain, *BASE_SPECIAL}
    control = {task.tokenizer.token_to_id(token) for token in names}
    harmless = task.encode_chat(messages([("user", "a"), ("assistant", "ok"), ("user", "b")]))
    assert [t for t in ids if t in control] == [t for t in harmless if t in control]


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__ }}",
        "{{ messages.__class__() }}",
        "{{ messages.append(1) }}",
        "{{ dict.__subclasses__() }}",
        "{{ dict.update(messages[0], role='x') }}",
        "{% set ns = namespace(_x=1) %}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{% set ns = namespace({'a': 1}, self=2) %}{{ ns.a }}{{ ns.self }}",
        "{{ ''.__class__.__mro__[1] }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ strftime_now.__globals__['json'] }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% include 'x' %}",
        "{{ tools }}{{ documents }}{{ add_generation_prompt }}{{ nothing }}",
        "{{ '<&' | tojson }}{{ '<&' | e }}{{ 'é' | tojson(ensure_ascii=true) }}",
    ],
)
def test_a_template_can_do_what_it_can_in_transformers(template: str) -> None:
    """The sandbox above all: a checkpoint's template is somebody else's code."""
    chat = dicts([("user", "a")])
    outcomes: list[Any] = []
    for how in (
        lambda: EMPTY.apply_chat_template(chat, tokenize=False, chat_template=template),
        lambda: render(template, {}, chat, asks_for_answer=False),
    ):
        try:
            outcomes.append(how())
        except Exception as error:  # whatever a template can raise
            outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]


def test_a_tag_for_training_is_a_scope() -> None:
    template = "{% set a = 1 %}{% generation %}{% set a = 2 %}{{ a }}{% endgeneration %}{{ a }}"
    chat = dicts([("user", "a")])
    wanted = EMPTY.apply_chat_template(chat, tokenize=False, chat_template=template)
    assert render(template, {}, chat) == wanted == "21"


LEAN = """
import sys
from pathlib import Path
from serving.seams import Message
from serving.tasks.generation import TASK
task = TASK.open(Path(sys.argv[1]), None)
assert task.encode_chat([Message("user", "Hi")])
stream = task.open_text(task.encode_prompt("Once"))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_a_replica_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    reference("llama 3").save_pretrained(checkpoint)
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "task").mkdir()
    TASK.prepare(Checkpoint(checkpoint), tmp_path / "task")
    found = subprocess.run(
        [sys.executable, "-c", LEAN, str(tmp_path / "task")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert {"tokenizers", "jinja2"} <= set(found)
    assert not {"torch", "transformers", "scipy", "huggingface_hub", "ray"} & set(found)
