"""What a client gets of a sequence: its text and its log-probabilities say the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.replica.generator.continuation import Continuation, Prompt
from serving.seams import FinishReason, GeneratedToken, Progress, TextLogprob, TextStream
from tests.unit.fakes.generator import FakeGenerationTask, logprob_of


class Words(FakeGenerationTask):
    """Tokens that are longer than a character."""

    words = ("", "the ", "end", " of", " it")
    rest = "…"

    def open_text(self, prompt: Sequence[int], with_calls: bool = False) -> TextStream:
        return self

    def push(self, token: int) -> str:
        return self.words[token]

    def finish(self) -> str:
        return self.rest

    def token_text(self, token: int) -> tuple[str, bytes]:
        return self.words[token], self.words[token].encode()


NO_TIME = Progress(0, 0, 0, 0)
Said = tuple[str, list[TextLogprob]]


def generated(
    token: int, finish: FinishReason | None = None, prompt: bytes = b"", logprobs: bool = True
) -> GeneratedToken:
    scores = tuple(logprob_of(byte, 1) for byte in prompt[1:])
    return GeneratedToken(
        token, finish, NO_TIME, logprob_of(token, 1) if logprobs else None, scores
    )


def start(stop: Iterable[str] = (), prompt: str = "Once", **arguments: Any) -> Continuation:
    return Continuation(
        FakeGenerationTask(), Prompt(tuple(prompt.encode()), prompt), tuple(stop), **arguments
    )


def feed(continuation: Continuation, raw: bytes, end: FinishReason | None = None) -> list[Said]:
    """Push tokens until the sequence ends; what could be sent after each."""
    said = []
    for number, byte in enumerate(raw):
        is_last = end == "length" and number + 1 == len(raw)
        continuation.push(generated(byte, "length" if is_last else None))
        said.append(taken(continuation))
        if continuation.finish is not None:
            return said
    if end == "stop":
        continuation.push(generated(0, "stop"))
        said.append(taken(continuation))
    return said


def taken(continuation: Continuation) -> Said:
    text, logprobs = continuation.take()
    return text, list(logprobs)


def whole(said: list[Said]) -> Said:
    return "".join(text for text, _ in said), [one for _, some in said for one in some]


def raw_of(logprobs: list[TextLogprob]) -> bytes:
    return b"".join(one.raw for one in logprobs)


def test_each_token_is_said_as_it_comes_with_its_logprob() -> None:
    said = feed(start(), b"ab")
    assert said == [
        ("a", [TextLogprob("a", b"a", -0.97, (("a", b"a", -0.97),))]),
        ("b", [TextLogprob("b", b"b", -0.98, (("b", b"b", -0.98),))]),
    ]


@pytest.mark.parametrize("end", ["stop", "length"])
def test_the_end_is_what_the_engine_says(end: FinishReason) -> None:
    continuation = start()
    assert raw_of(whole(feed(continuation, b"ab", end))[1]) == b"ab"
    assert continuation.finish == end
    assert continuation.num_tokens == (3 if end == "stop" else 2)


def test_a_stop_token_has_no_text_and_no_logprob() -> None:
    assert feed(start(), b"", "stop") == [("", [])]


def test_a_character_s_tokens_go_out_together() -> None:
    text = [text for text, _ in feed(start(), "aé".encode())]
    logprobs = [raw_of(some) for _, some in feed(start(), "aé".encode())]
    assert (text, logprobs) == (["a", "", "é"], [b"a", b"", "é".encode()])


@pytest.mark.parametrize("end", ["stop", "length"])
def test_a_broken_character_at_the_end_is_said_as_such(end: FinishReason) -> None:
    text, logprobs = whole(feed(start(), "a😀".encode()[:3], end))
    assert (text, raw_of(logprobs)) == ("a�", "a😀".encode()[:3])


def test_what_could_begin_a_stop_string_waits_with_its_logprobs() -> None:
    said = feed(start(["cat"]), b"a cab", "length")
    assert [text for text, _ in said] == ["a", " ", "", "", "cab"]
    assert [raw_of(some) for _, some in said] == [b"a", b" ", b"", b"", b"cab"]


def test_a_stop_string_ends_the_sequence_and_takes_its_logprobs_along() -> None:
    continuation = start(["cat"])
    assert feed(continuation, b"a cat!")[-3:] == [("", []), ("", []), ("", [])]
    assert continuation.finish == "stop"
    assert continuation.num_tokens == 5


@pytest.mark.parametrize(
    ("stop", "text", "tokens"),
    [
        (" end", "the", ["the "]),
        ("d o", "the en", ["the ", "end"]),
        ("of", "the end ", ["the ", "end", " of"]),
        ("the", "", []),
        ("end of", "the ", ["the "]),
        ("zero", "the end of it…", ["the ", "end", " of", " it"]),
        ("it", "the end of ", ["the ", "end", " of", " it"]),
    ],
)
def test_a_token_that_is_cut_in_two_is_said(stop: str, text: str, tokens: list[str]) -> None:
    continuation = Continuation(Words(), Prompt((1,), "the "), [stop])
    for token in (1, 2, 3, 4):
        if continuation.finish is None:
            continuation.push(generated(token, "length" if token == 4 else None))
    said, logprobs = continuation.take()
    assert (said, [one.text for one in logprobs]) == (text, tokens)


def test_tokens_without_text_are_said_at_the_end() -> None:
    task = Words()
    task.rest = ""
    continuation = Continuation(task, Prompt((1,), "the "))
    for token in (1, 0, 0):
        continuation.push(generated(token))
    assert [one.text for one in continuation.take()[1]] == ["the "]
    continuation.push(generated(0, "length"))
    assert [one.text for one in continuation.take()[1]] == ["", "", ""]


def test_a_stop_string_wins_over_the_limit() -> None:
    continuation = start(["b"])
    feed(continuation, b"ab", "length")
    assert continuation.finish == "stop"


def test_a_stop_string_may_be_complete_only_with_the_last_broken_character() -> None:
    continuation = start(["�"])
    assert whole(feed(continuation, b"a\xf0", "length"))[0] == "a"
    assert continuation.finish == "stop"


def test_the_prompt_does_not_count_for_stop_strings() -> None:
    continuation = start(["nce", "ea"], echo=True)
    assert whole(feed(continuation, b"ab", "length"))[0] == "Onceab"


def test_an_echo_comes_with_the_first_token() -> None:
    continuation = start(prompt="Hi", echo=True)
    continuation.push(generated(ord("!"), prompt=b"Hi"))
    text, logprobs = continuation.take()
    assert (text, raw_of(list(logprobs))) == ("Hi!", b"Hi!")
    assert [one.logprob for one in logprobs] == [None, -1.05, -0.33]
    assert logprobs[0].top == ()
    continuation.push(generated(ord("?")))
    assert continuation.take()[0] == "?"


def test_without_logprobs_there_are_none() -> None:
    continuation = start(prompt="Hi", echo=True)
    continuation.push(generated(ord("!"), logprobs=False))
    assert continuation.take() == ("Hi!", ())


def test_a_prompt_that_is_only_scored_has_no_continuation() -> None:
    continuation = start(prompt="Hi", echo=True, is_scored_only=True)
    continuation.push(generated(ord("!"), "length", prompt=b"Hi"))
    text, logprobs = continuation.take()
    assert (text, raw_of(list(logprobs))) == ("Hi", b"Hi")
    assert (continuation.finish, continuation.num_tokens) == ("length", 0)


def test_news_is_what_there_is_to_take() -> None:
    continuation = start(["bc"])
    assert not continuation.has_news
    continuation.push(generated(ord("a")))
    assert continuation.has_news
    continuation.take()
    continuation.push(generated(ord("b")))
    assert not continuation.has_news


@given(
    st.text("abé", max_size=12),
    st.lists(st.text("abé", min_size=1, max_size=3), max_size=3),
    st.sampled_from(["stop", "length"]),
)
def test_text_and_logprobs_always_say_the_same(
    text: str, stops: list[str], end: FinishReason
) -> None:
    said = feed(start(stops), text.encode(), end)
    sent_text, sent_raw = "", b""
    for piece, logprobs in said:
        sent_text += piece
        sent_raw += raw_of(logprobs)
        assert sent_raw.decode() == sent_text
    assert text.startswith(sent_text)
    assert not any(stop in sent_text for stop in stops)
