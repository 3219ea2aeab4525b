"""What travels between gateway and replica is pickled; nothing of it may get lost."""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayTaskError

from serving.errors import RequestError
from serving.seams import NO_OPTIONS, InferenceRequest, Outcome, ScoreRequest, TokensRequest
from serving.seams.generation import Message
from serving.seams.tools import Tool
from tests.unit.fakes.backends import describe
from tests.unit.fakes.encoder import TIMINGS, FakeTask
from tests.unit.gateway.test_remote_generator import ANSWER
from tests.unit.gateway.test_remote_generator import REQUEST as GENERATION

SCHEMA = {"type": "object", "properties": {"where": {"type": "string"}}}
TOOL = Tool("look", {"type": "function", "function": {"name": "look"}}, SCHEMA)
MESSAGES = (Message("user", "look there"),)
ASKED = [
    InferenceRequest(("x", ("a", "b")), truncate=True, options=NO_OPTIONS, timeout_s=5),
    ScoreRequest((1, 2), (3,), timeout_s=5, background=True),
    TokensRequest("", MESSAGES, (), timeout_s=5, tools=(TOOL,)),
    replace(GENERATION, prompts=(), messages=MESSAGES),
]


def errors(kind: type[RequestError] = RequestError) -> Iterator[type[RequestError]]:
    for one in kind.__subclasses__():
        yield one
        yield from errors(one)


def pickled(what: Any) -> Any:
    return pickle.loads(pickle.dumps(what, protocol=pickle.HIGHEST_PROTOCOL))


@pytest.mark.parametrize("what", [*ASKED, *ANSWER, describe(FakeTask())])
def test_requests_and_answers_are_the_same(what: Any) -> None:
    assert pickled(what) == what


def test_rows_are_the_same() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    there = pickled(Outcome(rows, ("a", "b"), 3, TIMINGS))
    assert there.rows.dtype == rows.dtype
    assert (there.rows == rows).all()
    assert (there.labels, there.tokens, there.timings) == (("a", "b"), 3, TIMINGS)


@pytest.mark.parametrize("kind", [*errors()])
def test_an_error_keeps_what_it_says(kind: type[RequestError]) -> None:
    error = kind("what is wrong")
    there = pickled(error)
    assert type(there) is kind
    assert vars(there) == vars(error)


def test_an_error_that_nobody_foresaw_keeps_its_kind() -> None:
    there = pickled(RayTaskError("infer", "a traceback", ValueError("what is wrong")))
    assert isinstance(there.as_instanceof_cause(), ValueError)
