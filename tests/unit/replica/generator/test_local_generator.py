"""The local backend of a generator: choices, deadlines, limits, closing, and what it counts."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from serving.errors import DeadlineExceeded, InternalError, InvalidField, QueueFull
from serving.replica.tokenizing import INLINE_CHARACTERS
from serving.seams import (
    GenerationRequest,
    GenerationSummary,
    Message,
    Sampling,
    TokenizedText,
    TokenRequest,
    TokensRequest,
    Tool,
)
from tests.unit.fakes.backends import describe_generator
from tests.unit.fakes.generator import FakeGenerationTask
from tests.unit.fakes.waiting import MAX_WAIT_S, let_others_act
from tests.unit.loop_clock import LoopClock
from tests.unit.replica.generator.generating import (
    SAMPLING,
    WITH_LOGPROBS,
    Replica,
    as_chunk,
    replica,
    request,
    run,
    score,
    texts,
)


async def test_a_prompt_is_continued_piece_by_piece() -> None:
    one = replica("Hi!")
    one.engine.hold()
    stream = one.backend.stream(request("a"))
    for piece in "Hi!":
        waiting = asyncio.ensure_future(anext(stream))
        await one.engine.let(1)
        chunk = as_chunk(await waiting)
        assert (chunk.choice, chunk.text, chunk.finish) == (0, piece, None)
    waiting = asyncio.ensure_future(anext(stream))
    await one.engine.let(1)
    assert as_chunk(await waiting).finish == "stop"
    assert isinstance(await anext(stream), GenerationSummary)


async def test_every_choice_has_its_place_and_its_seed() -> None:
    one = replica()
    said = await texts(one.backend, request("a", "b", n=2))
    assert said == ["a7", "a8", "b7", "b8"]


async def test_all_choices_run_at_once() -> None:
    one = replica()
    one.engine.hold()
    running = asyncio.create_task(run(one.backend, request("a", "b", n=3)))
    await let_others_act()
    assert len(one.engine.open) == 6
    await one.engine.let(6 * 3)
    await running


async def test_a_chat_is_one_prompt() -> None:
    one = replica("Hello")
    asked = request(messages=(Message("user", "Hi"), Message("assistant", "?")))
    assert await texts(one.backend, asked) == ["Hello"]
    assert one.engine.requests[0].prompt == tuple(b"<user>Hi<assistant>?")


async def test_what_is_not_streamed_comes_whole_each_choice_once() -> None:
    one = replica("Hello", "there")
    chunks, _ = await run(one.backend, request("a", "b", stream=False, sampling=WITH_LOGPROBS))
    assert sorted((chunk.choice, chunk.text, chunk.finish) for chunk in chunks) == [
        (0, "Hello", "stop"),
        (1, "there", "stop"),
    ]
    assert {len(chunk.logprobs) for chunk in chunks} == {5}


async def test_pieces_that_pile_up_are_sent_as_one() -> None:
    one = replica("abcdef")
    one.engine.hold()
    stream = one.backend.stream(request("x"))
    waiting = asyncio.ensure_future(anext(stream))
    await one.engine.let(1)
    assert as_chunk(await waiting).text == "a"
    await one.engine.let(4)
    assert as_chunk(await anext(stream)).text == "bcde"
    waiting = asyncio.ensure_future(anext(stream))
    await one.engine.let(1)
    assert as_chunk(await waiting).text == "f"
    await stream.aclose()


async def test_a_token_that_says_nothing_yet_is_no_piece() -> None:
    chunks, _ = await run(replica("né. e").backend, request("x", stop=(".!",)))
    assert [chunk.text for chunk in chunks] == ["n", "é", ". ", "e", ""]
    assert [chunk.finish for chunk in chunks] == [None, None, None, None, "stop"]


async def test_a_stop_string_ends_one_choice_and_frees_its_place_at_once() -> None:
    one = replica("one. two", "no end")
    one.engine.hold()
    running = asyncio.create_task(run(one.backend, request("a", "b", stop=(".",), max_tokens=6)))
    await one.engine.let(8)
    assert [bytes(r.prompt) for r in one.engine.open] == [b"b"]
    await one.engine.let(20)
    chunks, summary = await running
    ends = {chunk.choice: chunk.finish for chunk in chunks if chunk.finish}
    assert ends == {0: "stop", 1: "length"}
    assert summary.output_tokens == 4 + 6
    assert one.engine.steps == 4 + 6


@pytest.mark.parametrize("max_tokens", [3, None])
async def test_the_end_and_the_tokens_are_told(max_tokens: int | None) -> None:
    one = replica("Hello")
    chunks, summary = await run(one.backend, request("abc", "d", max_tokens=max_tokens, n=1))
    assert chunks[-1].finish is not None
    assert summary.prompt_tokens == 4
    first = "length" if max_tokens else "stop"
    assert {chunk.finish for chunk in chunks if chunk.choice == 0 and chunk.finish} == {first}
    parrot = 2 + 1  # the prompt, the seed and the stop token
    assert summary.output_tokens == (3 if max_tokens else 6) + parrot


async def test_prompts_count_once_whatever_n_is() -> None:
    _, summary = await run(replica().backend, request("abc", "de", n=3))
    assert (summary.prompt_tokens, summary.cached_tokens) == (5, 5)


async def test_without_a_limit_as_many_tokens_as_fit_are_asked_for() -> None:
    one = replica(max_tokens=20)
    await run(one.backend, request("abc", max_tokens=None))
    assert one.engine.requests[0].max_new_tokens == 17


@pytest.mark.parametrize(
    ("asked", "param", "message"),
    [
        (
            request("abc", max_tokens=18),
            "max_tokens",
            "prompt 0 has 3 tokens and max_tokens asks for 18 more; 'smollm2' takes 20 together",
        ),
        (request("a", "b" * 19, max_tokens=2), "max_tokens", "prompt 1 has 19 tokens"),
        (
            request("a" * 20, max_tokens=None),
            "prompt",
            "prompt 0 has 20 tokens; 'smollm2' takes 20",
        ),
        (
            request(messages=(Message("user", "a" * 20),), max_tokens=None),
            "messages",
            "the chat has 26 tokens",
        ),
        (request("a", max_tokens=0), "max_tokens", "0 only with echo"),
        (request("a", "b", n=4), "n", "2 prompts with n = 4 are 8 sequences; .* at most 6"),
        (request("a", stop=("x", "y" * 257)), "stop", "at most 256 characters"),
        (request("a", ""), "prompt", "empty"),
    ],
)
async def test_what_can_never_fit_is_refused_before_the_engine_sees_it(
    asked: GenerationRequest, param: str, message: str
) -> None:
    one = replica(max_tokens=20)
    with pytest.raises(InvalidField, match=message) as caught:
        await run(one.backend, asked)
    assert caught.value.param == param
    is_too_long = " tokens" in message
    assert caught.value.code == ("context_length_exceeded" if is_too_long else "invalid_field")
    assert one.engine.requests == []
    assert one.value("in_flight_requests") == 0


async def test_what_fits_to_the_token_is_let_through() -> None:
    one = replica("x" * 99, max_tokens=20)
    _, summary = await run(one.backend, request("abc", max_tokens=17))
    assert summary.output_tokens == 17


async def test_an_echo_with_logprobs_scores_the_prompt() -> None:
    one = replica("!")
    asked = request("Hi", echo=True, stream=False, sampling=WITH_LOGPROBS)
    [chunk], _ = await run(one.backend, asked)
    assert chunk.text == "Hi!"
    assert [score.raw for score in chunk.logprobs] == [b"H", b"i", b"!"]
    assert chunk.logprobs[0].logprob is None


@pytest.mark.parametrize(
    ("echo", "sampling"), [(True, SAMPLING), (False, WITH_LOGPROBS), (False, SAMPLING)]
)
async def test_a_prompt_is_only_scored_if_its_scores_are_sent(
    echo: bool, sampling: Sampling
) -> None:
    one = replica("!")
    said = await texts(one.backend, request("Hi", echo=echo, sampling=sampling))
    assert said == ["Hi!" if echo else "!"]
    assert one.engine.requests[0].logprobs_from is None


async def test_a_prompt_alone_can_be_scored() -> None:
    one = replica("!")
    asked = request("Hi", echo=True, max_tokens=0, sampling=WITH_LOGPROBS)
    [chunk], summary = await run(one.backend, asked)
    assert (chunk.text, chunk.finish) == ("Hi", "length")
    assert [score.raw for score in chunk.logprobs] == [b"H", b"i"]
    assert (summary.prompt_tokens, summary.output_tokens) == (2, 0)
    assert one.value("output_tokens_total") == 0


async def test_the_first_token_has_a_deadline_for_every_choice() -> None:
    clock, one = LoopClock(), replica("ab", "cd")
    one.engine.hold()
    asked = request("x", "y", first_token_timeout_s=60, timeout_s=600)
    running = asyncio.create_task(run(one.backend, asked))
    await one.engine.let(1)
    await clock.move(60)
    with pytest.raises(DeadlineExceeded, match="no first token within 60 s"):
        await running
    assert one.engine.open == []


async def test_after_the_first_token_only_the_end_has_a_deadline() -> None:
    clock, one = LoopClock(), replica("abcd")
    one.engine.hold()
    asked = request("x", first_token_timeout_s=60, timeout_s=600)
    stream = one.backend.stream(asked)
    waiting = asyncio.ensure_future(anext(stream))
    await one.engine.let(1)
    assert as_chunk(await waiting).text == "a"
    waiting = asyncio.ensure_future(anext(stream))
    await clock.move(300)
    assert not waiting.done()
    await clock.move(300)
    with pytest.raises(DeadlineExceeded, match="not finished within 600 s"):
        await waiting
    assert one.engine.open == []


async def test_a_deadline_frees_the_places_even_while_the_consumer_is_away() -> None:
    clock, one = LoopClock(), replica("abcd")
    one.engine.hold()
    stream = one.backend.stream(request("x", timeout_s=600))
    waiting = asyncio.ensure_future(anext(stream))
    await one.engine.let(1)
    await waiting
    await clock.move(600)
    await one.engine.idle.wait()
    with pytest.raises(DeadlineExceeded):
        await anext(stream)


async def test_an_answer_that_is_complete_in_time_may_be_fetched_late() -> None:
    clock, one = LoopClock(), replica("ab")
    stream = one.backend.stream(request("x", timeout_s=600))
    first = as_chunk(await anext(stream))
    await let_others_act()
    await clock.move(900)
    rest = [item async for item in stream]
    assert first.text + as_chunk(rest[0]).text == "ab"
    assert isinstance(rest[-1], GenerationSummary)


@pytest.mark.parametrize("failure", [QueueFull("full", retry_after_s=1), InvalidField("no")])
async def test_an_error_of_one_choice_ends_all(failure: Exception) -> None:
    one = replica("ab", failure, "cd")
    one.engine.hold()
    running = asyncio.create_task(run(one.backend, request("x", "y", "z")))
    await one.engine.let(3)
    with pytest.raises(type(failure)):
        await running
    assert one.engine.open == []
    assert one.value("in_flight_requests") == 0


async def test_an_error_that_nobody_foresaw_is_told_without_its_details() -> None:
    one = replica(ZeroDivisionError("secret"))
    with pytest.raises(InternalError) as caught:
        await run(one.backend, request("x"))
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_an_engine_that_ends_without_a_reason_is_an_error() -> None:
    one = replica()

    async def end(request: TokenRequest) -> AsyncIterator[None]:
        return
        yield

    vars(one.engine)["generate"] = end
    with pytest.raises(InternalError):
        await run(one.backend, request("x"))


async def test_a_consumer_that_goes_away_frees_every_place() -> None:
    one = replica()
    one.engine.hold()
    stream = one.backend.stream(request("x", n=3))
    waiting = asyncio.ensure_future(anext(stream))
    await one.engine.let(1)
    await waiting
    assert len(one.engine.open) == 3
    await stream.aclose()
    assert one.engine.open == []
    assert one.value("in_flight_requests") == 0


async def test_a_consumer_that_is_cancelled_frees_every_place() -> None:
    one = replica()
    one.engine.hold()
    running = asyncio.create_task(run(one.backend, request("x", n=3)))
    await let_others_act()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert one.engine.open == []
    assert one.value("in_flight_requests") == 0


async def test_the_next_request_works_after_one_that_was_dropped() -> None:
    one = replica()
    stream = one.backend.stream(request("x"))
    await anext(stream)
    await stream.aclose()
    assert await texts(one.backend, request("y")) == ["y7"]


async def test_a_finished_answer_is_counted() -> None:
    one = replica("Hello", "You", "All")
    await run(one.backend, request("abc", "de"))
    await run(one.backend, request("fg"))
    assert one.value("input_tokens_total") == 3 + 2 + 2
    assert one.value("cached_input_tokens_total") == 3 + 2 + 2
    assert one.value("output_tokens_total") == 6 + 4 + 4
    assert one.value("tokenize_duration_seconds_count") == 2
    for phase in ("queue_duration", "prefill_duration", "decode_duration", "time_to_first_token"):
        assert one.value(f"{phase}_seconds_count") == 3
    assert one.value("time_per_output_token_seconds_count") == 3
    assert one.value("in_flight_requests") == 0


async def test_a_prompt_is_counted_once_whatever_n_is() -> None:
    one = replica()
    await run(one.backend, request("abc", n=3))
    assert one.value("input_tokens_total") == 3
    assert one.value("cached_input_tokens_total") == 3


async def test_a_single_token_has_no_time_per_token() -> None:
    one = replica("Hello")
    await run(one.backend, request("abc", max_tokens=1))
    assert one.value("time_to_first_token_seconds_count") == 1
    assert one.value("time_per_output_token_seconds_count") == 0


async def test_an_answer_that_is_dropped_counts_as_far_as_it_came() -> None:
    one = replica("abcd")
    one.engine.hold()
    stream = one.backend.stream(request("x"))
    waiting = asyncio.ensure_future(anext(stream))
    await one.engine.let(2)
    await waiting
    await stream.aclose()
    assert one.value("output_tokens_total") == 2
    assert one.value("input_tokens_total") == 1
    assert one.value("decode_duration_seconds_count") == 0


async def test_requests_in_flight_are_shown() -> None:
    one = replica()
    one.engine.hold()
    running = asyncio.create_task(run(one.backend, request("x", n=2)))
    await let_others_act()
    assert one.value("in_flight_requests") == 1
    assert one.value("running_requests") == 2
    assert one.value("kv_cache_used_ratio") == 0.25
    await one.engine.let(20)
    await running


async def test_token_ids_are_continued_as_their_text_is() -> None:
    one = replica()
    by_text, of_text = await run(one.backend, request("abc", echo=True, stream=False))
    by_ids, of_ids = await run(one.backend, request(tuple(b"abc"), echo=True, stream=False))
    assert [chunk.text for chunk in by_ids] == [chunk.text for chunk in by_text]
    assert (of_ids.prompt_tokens, of_ids.output_tokens) == (3, of_text.output_tokens)
    assert [asked.prompt for asked in one.engine.requests] == [tuple(b"abc")] * 2


async def test_token_ids_that_the_model_does_not_have_are_refused() -> None:
    one = replica()
    with pytest.raises(InvalidField, match="no token 256"):
        await run(one.backend, request((1, 256)))
    assert one.engine.requests == []


async def test_the_model_s_end_may_be_ignored() -> None:
    one = replica("\0\0bcd", "\0\0bcd")
    chunks, summary = await run(one.backend, request("a", max_tokens=3, ignores_end=True))
    assert (chunks[-1].finish, summary.output_tokens) == ("length", 3)
    chunks, summary = await run(one.backend, request("a", max_tokens=3))
    assert (chunks[-1].finish, summary.output_tokens) == ("stop", 1)


async def test_tokens_of_a_text_a_chat_and_back() -> None:
    one = replica(max_tokens=20)
    long = "x" * 50  # longer than a prompt may be
    found = await one.backend.tokens(TokensRequest(long, (), (), 5))
    assert found == TokenizedText(tuple(long.encode()), tuple(long), long, 20)
    chat = await one.backend.tokens(TokensRequest("", (Message("user", "hi"),), (), 5))
    assert (chat.tokens, chat.text) == (tuple(b"<user>hi"), "")
    told = TokensRequest("", (Message("user", "hi"),), (), 5, (Tool("add", {}, {}),))
    assert (await one.backend.tokens(told)).tokens == tuple(b"[add]<user>hi")
    assert (await one.backend.tokens(TokensRequest("", (), tuple(b"cat"), 5))).text == "cat"
    with pytest.raises(InvalidField, match="no token 256"):
        await one.backend.tokens(TokensRequest("", (), (256,), 5))
    assert one.engine.requests == []


async def test_the_last_chunk_of_a_choice_has_its_token_counts() -> None:
    chunks, summary = await run(replica().backend, request("abc", n=2))
    last = {chunk.choice: chunk for chunk in chunks if chunk.finish is not None}
    assert {chunk.prompt_tokens for chunk in last.values()} == {summary.prompt_tokens}
    assert sum(chunk.output_tokens for chunk in last.values()) == summary.output_tokens > 0


async def test_the_parts_of_the_time_fit_into_the_total() -> None:
    chunks, summary = await run(replica().backend, request("abc", "de"))
    for timings in (*(chunk.timings for chunk in chunks), summary.timings):
        parts = (timings.queue, timings.tokenize, timings.prefill, timings.decode)
        assert min(parts) >= 0
        assert sum(parts) <= timings.total


async def test_the_time_of_a_request_is_that_of_its_longest_choice() -> None:
    one = replica("a", "b" * 50, "c")
    chunks, summary = await run(one.backend, request("x", "y", "z", stream=False))
    durations = [t.queue + t.prefill + t.decode for t in (chunk.timings for chunk in chunks)]
    told = summary.timings
    assert told.queue + told.prefill + told.decode == max(durations) > min(durations)


async def test_the_time_to_tokenize_counts_for_the_deadlines(monkeypatch) -> None:
    one = replica("a" * 50)
    encode = one.task.encode_prompt

    def encode_slowly(prompt: str) -> tuple[int, ...]:
        time.sleep(0.05)
        return encode(prompt)

    monkeypatch.setattr(one.task, "encode_prompt", encode_slowly)
    with pytest.raises(DeadlineExceeded, match="not finished"):
        await run(one.backend, request("x", timeout_s=0.04))
    assert one.engine.open == []


class SlowTask(FakeGenerationTask):
    """Begins to tokenize when ``gate`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def encode_prompt(self, prompt: str) -> tuple[int, ...]:
        assert self.gate.wait(MAX_WAIT_S)
        return super().encode_prompt(prompt)

    def encode_continuation(
        self, prompt: str, continuation: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        assert self.gate.wait(MAX_WAIT_S)
        return super().encode_continuation(prompt, continuation)


LONG = "x" * (INLINE_CHARACTERS + 1)


@pytest.mark.parametrize("deadlines", [{"first_token_timeout_s": 0.01}, {"timeout_s": 0.01}])
async def test_a_prompt_that_is_still_tokenized_at_its_deadline_is_given_up(
    deadlines: dict[str, float],
) -> None:
    one = replica(task=(task := SlowTask()))
    with pytest.raises(DeadlineExceeded, match=r"no first token within 0\.01 s"):
        await run(one.backend, request(LONG, **deadlines))
    task.gate.set()
    assert one.engine.requests == []
    assert one.value("in_flight_requests") == 0


async def test_what_the_engine_has_no_room_for_is_not_tokenized() -> None:
    one = replica()
    one.engine.hold()
    running = asyncio.create_task(run(one.backend, request("a", "b", n=2)))
    await let_others_act()
    with pytest.raises(QueueFull, match=r"4 sequences run or wait, 3 more .* at most 6") as caught:
        await run(one.backend, request("c", n=3))
    assert caught.value.retry_after_s == 1
    other = asyncio.create_task(run(one.backend, request("c", n=2)))
    await let_others_act()
    with pytest.raises(QueueFull):
        await one.backend.score(score("d", "e"))
    assert len(one.task.encoded_in) == 3
    await one.engine.let(20)
    await asyncio.gather(running, other)
    assert len(await one.backend.score(score("d", "e"))) == 1


async def test_a_background_request_takes_no_room_away_from_others() -> None:
    one = replica()
    one.engine.hold()
    scored = asyncio.create_task(one.backend.score(replace(score("d", "e"), background=True)))
    await let_others_act()
    running = asyncio.create_task(run(one.backend, request("a", n=6)))
    await let_others_act()
    assert len(one.engine.open) == 7
    with pytest.raises(QueueFull, match="6 sequences run or wait"):
        await run(one.backend, request("b"))
    await one.engine.let(40)
    await asyncio.gather(scored, running)


async def test_what_is_being_tokenized_keeps_its_room() -> None:
    one = replica(task=(task := SlowTask()), max_tokens=100_000)
    waiting = [
        asyncio.create_task(run(one.backend, request(LONG, n=5))),
        asyncio.create_task(one.backend.score(score(LONG, "y"))),
    ]
    await let_others_act()
    for refused in (run(one.backend, request("a")), one.backend.score(score((1,), (2,)))):
        with pytest.raises(QueueFull, match="6 sequences run or wait"):
            await refused
    waiting.pop().cancel()
    await let_others_act()
    assert len(await one.backend.score(score((1,), (2,)))) == 1
    task.gate.set()
    await waiting[0]


@pytest.mark.parametrize(
    ("characters", "is_on_the_loop"), [(INLINE_CHARACTERS, True), (INLINE_CHARACTERS + 1, False)]
)
async def test_long_prompts_are_tokenized_off_the_loop(
    characters: int, is_on_the_loop: bool
) -> None:
    one = replica("a", max_tokens=100_000)
    await run(one.backend, request("x" * characters))
    [thread] = one.task.encoded_in
    assert (thread is threading.current_thread()) == is_on_the_loop


@pytest.mark.parametrize("text", ["x", LONG])
async def test_every_chat_is_tokenized_off_the_loop(text: str) -> None:
    """Its template is a program of somebody else, whatever the length of what it is given."""
    one = replica("a", max_tokens=1_000_000)
    messages = (Message("user", text),)
    await one.backend.tokens(TokensRequest("", messages, (), MAX_WAIT_S))
    await run(one.backend, request(messages=messages))
    assert threading.current_thread() not in one.task.encoded_in
    assert len(one.task.encoded_in) == 2


async def test_describe_says_what_is_loaded() -> None:
    assert await replica().backend.describe() == describe_generator()


def numbers(one: Replica) -> dict[str, float]:
    """Every counter and every count of a histogram."""
    return {
        sample.name: sample.value
        for family in one.metrics.registry.collect()
        for sample in family.samples
        if sample.name.endswith(("_total", "_count", "_sum"))
    }


async def test_a_background_request_counts_nowhere() -> None:
    one = replica("Hello")
    before = numbers(one)
    said = await texts(one.backend, request("abc", background=True, trace=0))
    await one.backend.score(score((1, 2), (3,), background=True))
    assert said == ["Hello"]
    assert [asked.background for asked in one.engine.requests] == [True, True]
    assert len(before) > 10
    assert numbers(one) == before


@pytest.mark.parametrize("background", [True, False])
async def test_a_background_request_runs_only_alone(background: bool) -> None:
    one = replica()
    one.engine.hold()
    running = asyncio.create_task(run(one.backend, request("x", background=background)))
    await let_others_act()
    assert one.value("in_flight_requests") == (0 if background else 1)
    assert one.value("running_requests") == 1
    with pytest.raises(QueueFull, match="other work") as caught:
        await run(one.backend, request("y", background=True))
    assert caught.value.retry_after_s == 1
    with pytest.raises(QueueFull, match="other work"):
        await one.backend.score(score((1,), (2,), background=True))
    assert len(one.engine.requests) == 1
    await one.engine.let(20)
    await running
    one.engine.hold()
    waiting = asyncio.create_task(run(one.backend, request("y", background=True)))
    await one.engine.let(20)
    await waiting


async def test_a_background_request_goes_on_when_others_come() -> None:
    one = replica("ab", "cd")
    one.engine.hold()
    first = asyncio.create_task(texts(one.backend, request("x", background=True)))
    await let_others_act()
    second = asyncio.create_task(texts(one.backend, request("y")))
    await one.engine.let(20)
    assert (await first, await second) == (["ab"], ["cd"])
