"""Answers of a form: what the engine is asked, and what a client hears of a bad one."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from serving.errors import InvalidField
from serving.seams import TokenTable
from tests.unit.fakes.generator import FakeGenerationTask
from tests.unit.replica.generator.generating import replica, request, run, texts

SCHEMA = {"enum": ["yes", "no"]}


class WatchedTask(FakeGenerationTask):
    """Notes where its tokens were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read_in: list[threading.Thread] = []

    def token_table(self) -> TokenTable:
        self.read_in.append(threading.current_thread())
        return super().token_table()


async def test_each_choice_gets_the_grammar_and_a_place_of_its_own_in_it() -> None:
    site = replica('"yes"', '"no"')
    asked = request("a", n=2, answer_schema=SCHEMA)
    assert await texts(site.backend, asked) == ['"yes"', '"no"']
    for sent in site.engine.requests:
        assert sent.sampling.grammar is not None
        state = sent.sampling.grammar.begin()
        assert np.flatnonzero(state.allowed(256)).tolist() == [ord('"')]


async def test_a_free_answer_has_none() -> None:
    task = WatchedTask()
    site = replica("a", task=task)
    await texts(site.backend, request("a"))
    assert site.engine.requests[0].sampling.grammar is None
    assert task.read_in == []


async def test_the_event_loop_does_not_wait_for_grammars() -> None:
    task = WatchedTask()
    site = replica(task=task)
    for _ in range(2):
        await texts(site.backend, request("a", answer_schema=SCHEMA))
    [thread] = task.read_in
    assert thread is not threading.current_thread()


async def test_a_schema_that_cannot_be_had_is_refused_before_any_work() -> None:
    site = replica()
    asked = request("a", answer_schema={"type": "array", "uniqueItems": True})
    with pytest.raises(InvalidField, match="uniqueItems") as caught:
        await texts(site.backend, asked)
    assert caught.value.param == "response_format"
    assert site.engine.requests == []
    # Its places are free again.
    assert await texts(site.backend, request(*"abcdef")) != []


async def test_an_answer_without_room_is_cut_as_others_are() -> None:
    site = replica('{"a": [1, 2, 3]}')
    asked = request("a", answer_schema={"type": "object"}, max_tokens=11)
    chunks, _ = await run(site.backend, asked)
    assert "".join(chunk.text for chunk in chunks) == '{"a": [1, 2'
    assert chunks[-1].finish == "length"
