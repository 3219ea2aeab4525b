"""Traces: one choice token by token, for the comparison with the reference."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serving.replica.generator.choices import MAX_TRACED_TOKENS
from serving.seams import (
    NUM_TRACED,
    Sampling,
)
from tests.unit.fakes.generator import logprob_of
from tests.unit.replica.generator.generating import (
    SAMPLING,
    WITH_LOGPROBS,
    replica,
    request,
    run,
)


async def test_a_trace_has_every_token_that_was_generated_the_last_included() -> None:
    for traced, prompt, said in ((0, b"abc", b"Hi\0"), (1, b"d", b"yo.")):
        one = replica("Hi", "yo. and on")
        asked = request("abc", "d", trace=traced, stop=(".",))
        _, summary = await run(one.backend, asked)
        [trace] = summary.traces
        assert trace.prompt == tuple(prompt)
        assert trace.tokens == tuple(logprob_of(token, NUM_TRACED) for token in said)


async def test_only_the_choice_that_is_traced_costs_the_engine_more() -> None:
    one = replica()
    await run(one.backend, request("a", "b", n=2, trace=2))
    assert [asked.sampling.logprobs for asked in one.engine.requests] == [
        None,
        None,
        NUM_TRACED,
        None,
    ]


async def test_a_trace_is_cut_and_the_answer_is_not() -> None:
    one = replica("x" * (MAX_TRACED_TOKENS + 5))
    asked = request("a", trace=0, max_tokens=MAX_TRACED_TOKENS + 5)
    _, summary = await run(one.backend, asked)
    assert summary.output_tokens == MAX_TRACED_TOKENS + 5
    assert len(summary.traces[0].tokens) == MAX_TRACED_TOKENS


async def test_what_nobody_asked_to_trace_has_no_trace() -> None:
    one = replica("Hi")
    _, summary = await run(one.backend, request("a"))
    assert summary.traces == ()
    assert one.engine.requests[0].sampling.logprobs is None


async def test_a_prompt_alone_leaves_an_empty_trace() -> None:
    asked = request("Hi", echo=True, max_tokens=0, trace=0)
    _, summary = await run(replica("!").backend, asked)
    assert [trace.tokens for trace in summary.traces] == [()]


@pytest.mark.parametrize("sampling", [SAMPLING, WITH_LOGPROBS, replace(SAMPLING, logprobs=0)])
@pytest.mark.parametrize("echo", [True, False])
async def test_the_client_sees_nothing_of_a_trace(sampling: Sampling, echo: bool) -> None:
    asked = request("abc", "d", echo=echo, sampling=sampling, stream=False)
    sent = []
    for one in (asked, replace(asked, trace=0)):
        chunks, _ = await run(replica("Hello", "you").backend, one)
        sent.append([(c.choice, c.text, c.logprobs, c.finish) for c in chunks])
    assert sent[0] == sent[1]
