"""Pieces of text become OpenAI's objects."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serving.routes.generation.writers import ChatWriter, CompletionWriter, figures, usage
from serving.seams import GenerationChunk, GenerationSummary, GenerationTimings, TextLogprob

TIMINGS = GenerationTimings(
    queue=0.001,
    tokenize=0.002,
    prefill=0.004,
    decode=0.7,
    total=1.0,
    prefill_core_wait=0.016,
    decode_core_wait=0.2,
)
SUMMARY = GenerationSummary(prompt_tokens=7, cached_tokens=2, output_tokens=10, timings=TIMINGS)


def chunk(text: str, *logprobs: TextLogprob, choice: int = 0, finish=None) -> GenerationChunk:
    return GenerationChunk(choice, text, logprobs, finish, TIMINGS)


def token(text: str, logprob: float | None = -0.5, *rivals: tuple[str, float]) -> TextLogprob:
    top = tuple((rival, rival.encode(), score) for rival, score in rivals)
    return TextLogprob(text, text.encode(), logprob, top)


def part(raw: bytes, logprob: float = -0.5) -> TextLogprob:
    return TextLogprob("\ufffd", raw, logprob, (("\ufffd", b"\x9f", -2.0),))


class TestCompletions:
    def test_a_piece_has_the_form_of_the_whole(self) -> None:
        expected = {"index": 2, "text": "hi", "logprobs": None, "finish_reason": "stop"}
        last = chunk("hi", choice=2, finish="stop")
        writer = CompletionWriter(False)
        assert writer.choice(last) == writer.delta(last) == expected

    def test_logprobs(self) -> None:
        written = CompletionWriter(True).choice(
            chunk("a cat", token("a", -0.1, ("a", -0.1), ("the", -2)), token(" cat", -0.3))
        )
        assert written["logprobs"] == {
            "tokens": ["a", " cat"],
            "token_logprobs": [-0.1, -0.3],
            "top_logprobs": [{"a": -0.1, "the": -2}, {" cat": -0.3}],
            "text_offset": [0, 1],
        }

    def test_a_token_that_is_not_among_the_most_probable_is_added(self) -> None:
        logprobs = CompletionWriter(True).choice(chunk("x", token("x", -9, ("y", -1))))["logprobs"]
        assert logprobs["top_logprobs"] == [{"y": -1, "x": -9}]

    def test_the_first_token_of_a_prompt_has_no_logprob(self) -> None:
        written = CompletionWriter(True).choice(chunk("ab", token("a", None), token("b")))
        logprobs = written["logprobs"]
        assert logprobs["token_logprobs"] == [None, -0.5]
        assert logprobs["top_logprobs"] == [None, {"b": -0.5}]

    def test_offsets_go_on_through_the_pieces_of_each_choice(self) -> None:
        writer = CompletionWriter(True)
        pieces = [
            chunk("ab", token("ab")),
            chunk("xyz", token("xyz"), choice=1),
            chunk("c", token("c")),
            chunk("w", token("w"), choice=1),
        ]
        offsets = [writer.delta(piece)["logprobs"]["text_offset"] for piece in pieces]
        assert offsets == [[0], [0], [2], [3]]

    def test_parts_of_a_character_keep_their_bytes_and_count_once(self) -> None:
        cat = "🐈".encode()
        logprobs = CompletionWriter(True).choice(
            chunk("é🐈!", token("é"), part(cat[:1]), part(cat[1:3]), part(cat[3:]), token("!"))
        )["logprobs"]
        assert logprobs["tokens"] == ["é", r"bytes:\xf0", r"bytes:\x9f\x90", r"bytes:\x88", "!"]
        assert logprobs["text_offset"] == [0, 1, 1, 1, 2]
        assert logprobs["top_logprobs"][1] == {r"bytes:\x9f": -2.0, r"bytes:\xf0": -0.5}

    @pytest.mark.parametrize("write", [CompletionWriter(True).choice, CompletionWriter(True).delta])
    def test_a_choice_without_tokens_has_empty_logprobs(self, write) -> None:
        assert write(chunk("", finish="stop"))["logprobs"] == {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }


class TestChat:
    def test_a_whole_choice_has_a_message(self) -> None:
        assert ChatWriter(False).choice(chunk("hi", choice=1, finish="length")) == {
            "index": 1,
            "message": {"role": "assistant", "content": "hi", "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }

    def test_only_the_first_piece_of_each_choice_has_the_role(self) -> None:
        writer = ChatWriter(True)
        pieces = [
            chunk("a"),
            chunk("", choice=1),
            chunk("b"),
            chunk("c", choice=1),
            chunk("", finish="stop"),
        ]
        assert [writer.delta(piece)["delta"] for piece in pieces] == [
            {"role": "assistant", "content": "a"},
            {"role": "assistant", "content": ""},
            {"content": "b"},
            {"content": "c"},
            {},
        ]

    def test_a_piece(self) -> None:
        assert ChatWriter(False).delta(chunk("a", choice=3, finish="stop")) == {
            "index": 3,
            "delta": {"role": "assistant", "content": "a"},
            "logprobs": None,
            "finish_reason": "stop",
        }

    @pytest.mark.parametrize("write", [ChatWriter(True).choice, ChatWriter(True).delta])
    def test_logprobs(self, write) -> None:
        written = write(chunk("é", token("é", -0.1, ("e", -2)), part(b"\xf0")))
        assert written["logprobs"] == {
            "content": [
                {
                    "token": "é",
                    "logprob": -0.1,
                    "bytes": [0xC3, 0xA9],
                    "top_logprobs": [{"token": "e", "logprob": -2, "bytes": [0x65]}],
                },
                {
                    "token": "\ufffd",
                    "logprob": -0.5,
                    "bytes": [0xF0],
                    "top_logprobs": [{"token": "\ufffd", "logprob": -2.0, "bytes": [0x9F]}],
                },
            ],
            "refusal": None,
        }

    @pytest.mark.parametrize("write", [ChatWriter(True).choice, ChatWriter(True).delta])
    def test_a_choice_without_tokens_has_empty_logprobs(self, write) -> None:
        logprobs = write(chunk("", finish="stop"))["logprobs"]
        assert logprobs == {"content": [], "refusal": None}


def test_usage_adds_up() -> None:
    assert usage(SUMMARY) == {
        "prompt_tokens": 7,
        "completion_tokens": 10,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


def test_figures_are_milliseconds() -> None:
    assert figures(SUMMARY, 1) == {
        "queue_ms": 1,
        "tokenize_ms": 2,
        "core_wait_ms": 216,
        "prefill_ms": 4,
        "decode_ms": 700,
        "total_ms": 1000,
        "time_to_first_token_ms": 23,
        "time_per_output_token_ms": 100,
    }


@pytest.mark.parametrize(("tokens", "choices"), [(1, 1), (0, 1), (10, 2)])
def test_one_token_and_several_choices_have_no_time_per_token(tokens: int, choices: int) -> None:
    summary = replace(SUMMARY, output_tokens=tokens)
    assert figures(summary, choices)["time_per_output_token_ms"] is None
