"""Answers as one object and as events; errors before and after the first; clients that leave."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Scope

from serving.errors import DeadlineExceeded, InternalError, NotReady, QueueFull, RequestError
from serving.metrics import Labels
from tests.unit.generation_fakes import CACHED_TOKENS, pieces_of
from tests.unit.routes.generation.conftest import (
    CHAT,
    COMPLETIONS,
    ROUTES,
    GeneratorSite,
    body_of,
    events_of,
)
from tests.unit.test_errors import REQUEST_ERRORS

INT4 = Labels("smollm2", "int4", "generation")
NAME = "smollm2:int4"
FIGURES = {
    "queue_ms": 1,
    "tokenize_ms": 2,
    "core_wait_ms": 0,
    "prefill_ms": 4,
    "decode_ms": 8,
    "total_ms": 16,
    "time_to_first_token_ms": 7,
    "time_per_output_token_ms": pytest.approx(8 / 3, abs=1e-3),
}
CHAT_ASKED = "user: a cat"


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
    }


def text_of(asked: str, number: int = 0) -> str:
    return "".join(pieces_of(NAME, asked, number))


class TestWhole:
    async def test_completions(self, generator) -> None:
        answer = (await generator.post(COMPLETIONS)).json()
        assert re.fullmatch("cmpl-[0-9a-f]{32}", answer.pop("id"))
        assert isinstance(answer.pop("created"), int)
        assert answer == {
            "object": "text_completion",
            "model": NAME,
            "choices": [
                {
                    "index": 0,
                    "text": text_of("a cat"),
                    "logprobs": None,
                    "finish_reason": "length",
                }
            ],
            "usage": usage(5, 4),
            "quantserve": FIGURES,
        }

    async def test_chat(self, generator) -> None:
        answer = (await generator.post(CHAT)).json()
        assert re.fullmatch("chatcmpl-[0-9a-f]{32}", answer.pop("id"))
        assert isinstance(answer.pop("created"), int)
        assert answer == {
            "object": "chat.completion",
            "model": NAME,
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": text_of(CHAT_ASKED),
                        "refusal": None,
                    },
                    "logprobs": None,
                    "finish_reason": "length",
                }
            ],
            "usage": usage(len(CHAT_ASKED), 4),
            "quantserve": FIGURES,
        }

    async def test_choices_are_in_order(self, generator) -> None:
        answer = (await generator.post(COMPLETIONS, prompt=["a", "b"], n=2)).json()
        assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [
            (0, text_of("a", 0)),
            (1, text_of("a", 1)),
            (2, text_of("b", 0)),
            (3, text_of("b", 1)),
        ]
        assert answer["usage"]["completion_tokens"] == 16
        assert answer["quantserve"]["time_per_output_token_ms"] is None

    async def test_server_timing_has_every_phase(self, generator) -> None:
        response = await generator.post(COMPLETIONS)
        assert re.fullmatch(
            r"queue;dur=1\.000, tokenize;dur=2\.000, core_wait;dur=0\.000, prefill;dur=4\.000, "
            r"decode;dur=8\.000, total;dur=\d+\.\d{3}",
            response.headers["Server-Timing"],
        )
        assert (response.headers["X-Model"], response.headers["X-Variant"]) == ("smollm2", "int4")

    async def test_the_id_is_the_request_s(self, generator) -> None:
        response = await generator.site.client.post(
            CHAT, json=body_of(CHAT), headers={"X-Request-Id": "abc"}
        )
        assert response.json()["id"] == "chatcmpl-abc"


class TestEvents:
    async def test_completions(self, generator) -> None:
        *chunks, done = await generator.events(COMPLETIONS)
        assert done == "[DONE]"
        assert {chunk["object"] for chunk in chunks} == {"text_completion"}
        assert {chunk["model"] for chunk in chunks} == {NAME}
        assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
        assert [chunk["choices"] for chunk in chunks] == [
            [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish}]
            for text, finish in zip(
                pieces_of(NAME, "a cat", 0), [None, None, None, "length"], strict=True
            )
        ]
        assert all("usage" not in chunk for chunk in chunks)

    async def test_chat(self, generator) -> None:
        *chunks, done = await generator.events(CHAT)
        assert done == "[DONE]"
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        first, *others = pieces_of(NAME, CHAT_ASKED, 0)
        deltas = [{"role": "assistant", "content": first}, *({"content": t} for t in others)]
        assert [chunk["choices"] for chunk in chunks] == [
            [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
            for delta, finish in zip(deltas, [None, None, None, "length"], strict=True)
        ]

    @pytest.mark.parametrize("route", ROUTES)
    @pytest.mark.parametrize("include_usage", [True, False])
    async def test_usage_comes_with_each_chunk_if_asked_for(
        self, generator, route: str, include_usage: bool
    ) -> None:
        options = {"include_usage": include_usage, "continuous_usage_stats": True}
        *chunks, done = await generator.events(route, stream_options=options, n=2)
        assert done == "[DONE]"
        if include_usage:
            last = chunks.pop()
            assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 8)
        num_prompt = len("a cat" if route == COMPLETIONS else CHAT_ASKED)
        for index in (0, 1):
            found = [c["usage"] for c in chunks if c["choices"][0]["index"] == index]
            assert found == [
                {
                    "prompt_tokens": num_prompt,
                    "completion_tokens": so_far,
                    "total_tokens": num_prompt + so_far,
                }
                for so_far in (1, 2, 3, 4)
            ]

    @pytest.mark.parametrize("route", ROUTES)
    async def test_usage_comes_last_if_asked_for(self, generator, route: str) -> None:
        *chunks, last, done = await generator.events(route, stream_options={"include_usage": True})
        assert done == "[DONE]"
        assert all(chunk["usage"] is None and len(chunk["choices"]) == 1 for chunk in chunks)
        assert last["choices"] == []
        asked = "a cat" if route == COMPLETIONS else CHAT_ASKED
        assert last["usage"] == usage(len(asked), 4)
        assert last["quantserve"] == FIGURES
        assert (last["id"], last["object"]) == (chunks[0]["id"], chunks[0]["object"])

    async def test_choices_are_told_apart(self, generator) -> None:
        *chunks, _ = await generator.events(COMPLETIONS, prompt=["a", "b"], n=2)
        texts = ["", "", "", ""]
        for chunk in chunks:
            [choice] = chunk["choices"]
            texts[choice["index"]] += choice["text"]
        assert texts == [text_of("a", 0), text_of("a", 1), text_of("b", 0), text_of("b", 1)]

    @pytest.mark.parametrize(("route", "asked"), [(COMPLETIONS, "2"), (CHAT, "True")])
    async def test_logprobs_go_with_their_piece(self, generator, route: str, asked: str) -> None:
        fields = {"logprobs": 2} if route == COMPLETIONS else {"logprobs": True, "top_logprobs": 2}
        *chunks, _ = await generator.events(route, **fields)
        logprobs = [chunk["choices"][0]["logprobs"] for chunk in chunks]
        if route == COMPLETIONS:
            assert [len(each["top_logprobs"][0]) for each in logprobs] == [3] * 4
            assert [each["text_offset"] for each in logprobs] == [[0], [12], [18], [26]]
        else:
            assert [len(each["content"][0]["top_logprobs"]) for each in logprobs] == [2] * 4

    async def test_headers(self, generator) -> None:
        response = await generator.post(CHAT, stream=True)
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert (response.headers["X-Model"], response.headers["X-Variant"]) == ("smollm2", "int4")
        assert re.fullmatch(
            r"queue;dur=1\.000, tokenize;dur=2\.000, core_wait;dur=0\.000, prefill;dur=4\.000, "
            r"total;dur=\d+\.\d{3}",
            response.headers["Server-Timing"],
        )

    async def test_one_stream_s_headers_are_not_the_next_one_s(self, generator) -> None:
        first = await generator.post(CHAT, stream=True)
        second = await generator.post(CHAT, stream=True)
        assert len(first.headers.raw) == len(second.headers.raw)

    async def test_the_backend_knows_whether_to_stream(self, generator) -> None:
        for stream in (True, False):
            await generator.post(CHAT, stream=stream)
        assert [request.stream for request in generator.fake.requests] == [True, False]


class TestErrorsBeforeTheFirstPiece:
    @pytest.mark.parametrize("kind", REQUEST_ERRORS)
    @pytest.mark.parametrize(("route", "stream"), [(COMPLETIONS, False), (CHAT, True)])
    async def test_have_their_own_status(
        self, generator, route: str, stream: bool, kind: type[RequestError]
    ) -> None:
        generator.fake.failure = kind("what was wrong", param="prompt")
        response = await generator.post(route, stream=stream)
        assert response.status_code == kind.status
        assert response.headers["Content-Type"] == "application/json"
        assert response.json()["error"]["message"] == "what was wrong"
        assert response.json()["error"]["code"] == kind.code
        assert generator.fake.running == 0
        if kind.status not in (404, 405):
            assert generator.site.counted() == {(INT4, str(kind.status)): 1}

    async def test_advice_to_retry_is_sent(self, generator) -> None:
        generator.fake.failure = QueueFull("full", retry_after_s=3)
        response = await generator.post(CHAT, stream=True)
        assert (response.status_code, response.headers["Retry-After"]) == (429, "3")

    @pytest.mark.parametrize("stream", [True, False])
    async def test_unforeseen_ones_are_500(self, generator, stream: bool) -> None:
        generator.fake.failure = RuntimeError("secret detail of a kernel")
        response = await generator.post(CHAT, stream=stream)
        assert response.status_code == 500
        assert response.json()["error"]["message"].startswith("internal error; see the log for")
        assert "secret" not in response.text

    @pytest.mark.parametrize("stream", [True, False])
    async def test_a_whole_answer_fails_as_a_whole(self, generator, stream: bool) -> None:
        generator.fake.failure, generator.fake.fail_at = InternalError("died"), 1
        response = await generator.post(COMPLETIONS, n=2, stream=stream)
        assert response.status_code == (200 if stream else 500)

    async def test_an_answer_without_an_end_is_an_error(self, generator) -> None:
        generator.fake.ends_early = True
        response = await generator.post(COMPLETIONS)
        assert response.status_code == 500
        assert "broke off" in response.json()["error"]["message"]


class TestErrorsAfterTheFirstPiece:
    @pytest.mark.parametrize("error", [DeadlineExceeded("too late"), InternalError("it died")])
    @pytest.mark.parametrize("route", ROUTES)
    async def test_are_the_last_event(self, generator, route: str, error: RequestError) -> None:
        generator.fake.failure, generator.fake.fail_at = error, 2
        *chunks, last = await generator.events(route, stream_options={"include_usage": True})
        assert len(chunks) == 2
        assert last == {
            "error": {
                "message": error.message,
                "type": "server_error",
                "code": error.code,
                "param": None,
            }
        }
        assert generator.fake.running == 0

    async def test_are_counted_by_their_status(self, generator) -> None:
        generator.fake.failure, generator.fake.fail_at = DeadlineExceeded("too late"), 2
        await generator.events(COMPLETIONS)
        assert generator.site.counted() == {(INT4, "504"): 1}

    async def test_unforeseen_ones_tell_only_where_to_look(self, generator) -> None:
        generator.fake.failure, generator.fake.fail_at = RuntimeError("secret detail"), 2
        response = await generator.site.client.post(
            CHAT, json=body_of(CHAT, stream=True), headers={"X-Request-Id": "abc"}
        )
        last = events_of(response)[-1]
        assert last["error"]["message"] == "internal error; see the log for request abc"
        assert last["error"]["code"] == "internal_error"
        assert "secret" not in response.text
        assert generator.site.counted() == {(INT4, "500"): 1}

    async def test_a_stream_without_an_end_has_one(self, generator) -> None:
        generator.fake.ends_early = True
        *_, last = await generator.events(CHAT)
        assert "broke off" in last["error"]["message"]


class Client:
    """An ASGI server and client in one, that can leave."""

    def __init__(self, generator: GeneratorSite, route: str, **fields: Any) -> None:
        body = json.dumps(body_of(route, **fields)).encode()
        self._request = {"type": "http.request", "body": body, "more_body": False}
        self._has_sent = False
        self._gone = asyncio.Event()
        self.got = asyncio.Event()
        self.messages: list[Any] = []
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": generator.root_path + route,
            "root_path": generator.root_path,
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        self.exchange = asyncio.create_task(generator.site.edge(scope, self._receive, self._send))

    def leave(self) -> None:
        self._gone.set()

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.messages).decode()

    async def _receive(self) -> Any:
        if not self._has_sent:
            self._has_sent = True
            return self._request
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.messages.append(message)
        self.got.set()


Leave = Callable[[Client], None]


def disconnect(client: Client) -> None:
    """As any ASGI server tells it."""
    client.leave()


def cancel(client: Client) -> None:
    """As Ray Serve does beside it."""
    client.leave()
    client.exchange.cancel()


@pytest.mark.parametrize("leave", [disconnect, cancel])
@pytest.mark.parametrize("stream", [True, False])
class TestClientsThatLeave:
    async def test_before_the_first_piece(self, generator, leave: Leave, stream: bool) -> None:
        generator.fake.hold_at = 0
        client = Client(generator, CHAT, stream=stream)
        await generator.fake.held.wait()
        assert generator.fake.running == 1
        leave(client)
        await asyncio.wait([client.exchange])
        assert generator.fake.running == 0
        assert client.messages == []
        assert generator.site.counted() == {(INT4, "499"): 1}
        assert generator.site.edge.in_flight == 0

    async def test_in_the_middle(self, generator, leave: Leave, stream: bool) -> None:
        generator.fake.hold_at = 1
        client = Client(generator, COMPLETIONS, stream=stream, n=2)
        await generator.fake.held.wait()
        leave(client)
        await asyncio.wait([client.exchange])
        assert (generator.fake.running, generator.fake.sent) == (0, 1)
        assert generator.site.counted() == {(INT4, "499"): 1}
        assert "[DONE]" not in client.text


async def test_pieces_are_sent_as_they_come(generator) -> None:
    generator.fake.hold_at = 2
    client = Client(generator, COMPLETIONS, stream=True)
    await generator.fake.held.wait()
    assert client.text.count("data: ") == 2
    assert generator.site.edge.in_flight == 1
    generator.fake.gate.set()
    await client.exchange
    assert client.text.endswith("data: [DONE]\n\n")
    assert client.messages[-1]["more_body"] is False
    assert generator.site.counted() == {(INT4, "200"): 1}


@pytest.mark.parametrize("stream", [True, False])
async def test_nothing_is_sent_before_the_first_piece(generator, stream: bool) -> None:
    generator.fake.hold_at = 0
    client = Client(generator, COMPLETIONS, stream=stream)
    await generator.fake.held.wait()
    assert client.messages == []
    generator.fake.failure = NotReady("loading")
    generator.fake.gate.set()
    await client.exchange


class TestLog:
    @pytest.mark.parametrize("stream", [True, False])
    async def test_the_line_comes_at_the_end_with_every_phase(
        self, generator, log, stream: bool
    ) -> None:
        await generator.post(CHAT, stream=stream)
        [line] = log.messages
        assert re.search(
            r"/v1/chat/completions 200 model=smollm2 variant=int4 queue=1\.00ms tokenize=2\.00ms "
            r"core_wait=0\.00ms prefill=4\.00ms decode=8\.00ms total=\d+\.\d\dms id=",
            line,
        )

    async def test_a_stream_that_failed_has_the_error_s_status(self, generator, log) -> None:
        generator.fake.failure, generator.fake.fail_at = DeadlineExceeded("too late"), 2
        await generator.post(CHAT, stream=True)
        assert "/v1/chat/completions 504 model=smollm2" in log.messages[-1]

    async def test_no_text_is_logged(self, generator, log) -> None:
        secret = "the text of a customer"
        generator.fake.failure, generator.fake.fail_at = DeadlineExceeded(secret), 2
        for fields in ({}, {"stop": [""]}, {"user": secret}, {secret: 1}):
            await generator.post(COMPLETIONS, prompt=secret, stream=True, **fields)
        assert secret not in log.text


class TestChoiceOfTheVariant:
    @pytest.mark.parametrize("route", ROUTES)
    async def test_a_model_of_another_task_is_refused(self, gateway_generator, route: str) -> None:
        response = await gateway_generator.post(route, model="minilm")
        assert response.status_code == 422
        assert response.json()["error"]["message"] == (
            "model 'minilm' serves embeddings, this route generation"
        )

    async def test_a_generator_embeds_nothing(self, generator) -> None:
        body = {"model": NAME, "input": "x"}
        response = await generator.site.client.post("/v1/embeddings", json=body)
        assert response.status_code == 422
        assert "serves generation, this route embeddings" in response.json()["error"]["message"]

    @pytest.mark.parametrize("route", ROUTES)
    async def test_by_field_header_and_default(self, generator, route: str) -> None:
        client = generator.site.client
        chosen = [
            await client.post(route, json=body_of(route, model="smollm2", variant="int4")),
            await client.post(
                route, json=body_of(route, model="smollm2"), headers={"X-Variant": "int4"}
            ),
        ]
        assert [response.json()["model"] for response in chosen] == [NAME, NAME]
        default = await client.post(route, json=body_of(route, model="smollm2"))
        assert default.json()["model"] == (NAME if generator.root_path else "smollm2:fp32")

    @pytest.mark.parametrize("model", ["gpt", "smollm2:int2"])
    async def test_an_unknown_one_is_404(self, gateway_generator, model: str) -> None:
        response = await gateway_generator.post(CHAT, model=model, stream=True)
        assert response.status_code == 404
        assert "served: " in response.json()["error"]["message"]


async def test_openapi_describes_both_forms(generator) -> None:
    paths = (await generator.site.client.get("/openapi.json")).json()["paths"]
    for route in ROUTES:
        described = paths[route]["post"]
        assert set(described["responses"]["200"]["content"]) == {
            "application/json",
            "text/event-stream",
        }
        assert "$ref" in described["requestBody"]["content"]["application/json"]["schema"]
