"""Around every exchange: key, body limit, headers, metrics and the log line."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message

from serving.errors import DeadlineExceeded, NotReady, QueueFull
from serving.metrics import Labels
from serving.routes.edge import DISCARDED_BYTES
from tests.unit.routes.sites import (
    CLASSIFY,
    EMBEDDINGS,
    Site,
    embeddings_body,
    infer_body,
    open_gateway,
)

INT4 = Labels("minilm", "int4", "embeddings")
SECRET = "the text of a customer"
JSON_TYPE = {"Content-Type": "application/json"}


class TestKey:
    OPEN = ("/health", "/healthz", "/healthz/", "/v2/health/live", "/v2/health/ready")
    CLOSED = ("/v1/models", "/v2", "/docs", "/openapi.json", "/no/such/route", "/v2/models/minilm")

    @pytest.mark.parametrize("path", OPEN)
    async def test_health_needs_none(self, open_site, path: str) -> None:
        assert (await open_site(api_key="k").client.get(path)).status_code == 200

    @pytest.mark.parametrize("path", ["/metrics", "/minilm/int4/v2/health/live"])
    async def test_metrics_and_health_of_a_variant_need_none(self, path: str) -> None:
        assert (await open_gateway(api_key="k").client.get(path)).status_code == 200

    async def test_liveness_below_a_variant_needs_none(self) -> None:
        assert (await open_gateway(api_key="k").client.get("/minilm/int4/healthz")).is_success

    @pytest.mark.parametrize(
        "path",
        ["/a/b/healthz", "/minilm/int2/healthz", "/minilm/healthz", "/x/metrics", "/metrics/x"],
    )
    async def test_a_path_that_only_looks_open_needs_one(self, path: str) -> None:
        assert (await open_gateway(api_key="k").client.get(path)).status_code == 401

    @pytest.mark.parametrize("path", CLOSED)
    async def test_everything_else_needs_one(self, open_site, path: str) -> None:
        response = await open_site(api_key="k").client.get(path)
        assert response.status_code == 401

    @pytest.mark.parametrize(
        "given", ["", "k", "Bearer", "Bearer ", "Bearer kk", "Bearer K", "Basic k", "Bearer k "]
    )
    async def test_a_wrong_key_is_refused_in_the_documented_shape(self, open_site, given) -> None:
        site = open_site(api_key="k")
        response = await site.client.post(
            EMBEDDINGS, json=embeddings_body(), headers={"Authorization": given}
        )
        assert response.status_code == 401
        assert response.json()["error"] == {
            "message": "send the key as Authorization: Bearer KEY",
            "type": "authentication_error",
            "code": "invalid_api_key",
            "param": "authorization",
        }
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert site.backend().requests == []

    async def test_the_right_key_is_accepted(self, open_site) -> None:
        site = open_site(api_key="k")
        headers = {"Authorization": "Bearer k"}
        response = await site.client.post(EMBEDDINGS, json=embeddings_body(), headers=headers)
        assert response.status_code == 200

    async def test_the_key_is_checked_before_the_body(self, open_site) -> None:
        site = open_site(api_key="k", max_body_bytes=1024)
        response = await site.client.post(EMBEDDINGS, content=b"x" * 5000)
        assert response.status_code == 401

    async def test_the_open_inference_protocol_s_own_shape(self, open_site) -> None:
        response = await open_site(api_key="k").client.get("/v2/models/minilm")
        assert response.json() == {"error": "send the key as Authorization: Bearer KEY"}

    async def test_a_key_may_have_any_letter(self, open_site) -> None:
        headers = {"Authorization": "Bearer schlüssel".encode()}
        response = await open_site(api_key="schlüssel").client.get("/v1/models", headers=headers)
        assert response.status_code == 200


def padded_body(size: int) -> bytes:
    """A good JSON body of exactly ``size`` bytes."""
    body = b'{"model": "minilm:int4", "input": "a cat"}'
    return body + b" " * (size - len(body))


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    """Sent without a Content-Length."""
    for start in range(0, len(body), 100):
        yield body[start : start + 100]


class TestBody:
    async def test_a_body_of_the_largest_size_is_read(self, open_site) -> None:
        client = open_site(max_body_bytes=1024).client
        for content in (padded_body(1024), in_chunks(padded_body(1024))):
            response = await client.post(EMBEDDINGS, content=content, headers=JSON_TYPE)
            assert response.status_code == 200

    async def test_a_declared_length_far_over_the_limit_is_refused_unread(self, open_site) -> None:
        site = open_site(max_body_bytes=1024)
        length = 1025 + DISCARDED_BYTES

        async def unread() -> AsyncIterator[bytes]:
            raise AssertionError("the body was read")
            yield b""

        headers = {**JSON_TYPE, "Content-Length": str(length)}
        response = await site.client.post(EMBEDDINGS, content=unread(), headers=headers)
        assert response.status_code == 413
        assert f"{length} bytes; the limit is 1024" in response.json()["error"]["message"]

    @pytest.mark.parametrize("content", [padded_body(1025), in_chunks])
    async def test_a_body_over_the_limit_is_refused(self, open_site, content) -> None:
        site = open_site(max_body_bytes=1024)
        content = content if isinstance(content, bytes) else content(padded_body(1025))
        response = await site.client.post(EMBEDDINGS, content=content, headers=JSON_TYPE)
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "body_too_large"
        assert "1024 bytes" in response.json()["error"]["message"]
        assert site.backend().requests == []

    async def test_a_body_somewhat_over_the_limit_is_read_to_its_end(self, open_site) -> None:
        sent: list[bytes] = []

        async def noted() -> AsyncIterator[bytes]:
            async for chunk in in_chunks(padded_body(2000)):
                sent.append(chunk)
                yield chunk

        site = open_site(max_body_bytes=1024)
        await site.client.post(EMBEDDINGS, content=noted(), headers=JSON_TYPE)
        assert len(b"".join(sent)) == 2000

    async def test_a_body_without_end_is_not_read_for_ever(self, open_site) -> None:
        async def flood() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 65_536

        site = open_site(max_body_bytes=1024)
        response = await site.client.post(EMBEDDINGS, content=flood(), headers=JSON_TYPE)
        assert response.status_code == 413

    async def test_the_open_inference_protocol_s_own_shape(self, open_site) -> None:
        path = "/v2/models/minilm/versions/int4/infer"
        response = await open_site(max_body_bytes=1024).client.post(path, content=b"x" * 1025)
        assert response.status_code == 413
        assert "1024 bytes" in response.json()["error"]

    async def test_a_body_that_never_ends_is_the_fault_of_its_sender(self, open_site) -> None:
        site = open_site(request_timeout_s=0.01)

        async def endless() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

        response = await site.client.post(EMBEDDINGS, content=endless(), headers=JSON_TYPE)
        assert response.status_code == 408
        error = response.json()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "body_too_slow")
        assert error["message"] == "the body did not arrive within 0.01 s"

    @pytest.mark.parametrize(
        ("body_s", "status", "left_s"), [(0.0, 200, 30), (25.5, 200, 4.5), (30.5, 408, None)]
    )
    async def test_what_a_body_took_is_not_left_for_the_answer(
        self, site, monkeypatch, body_s: float, status: int, left_s: float | None
    ) -> None:
        now, ahead = time.perf_counter, 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: now() + ahead)

        async def slow() -> AsyncIterator[bytes]:
            nonlocal ahead
            yield b" "
            ahead = body_s
            yield json.dumps(embeddings_body()).encode()

        response = await site.client.post(EMBEDDINGS, content=slow(), headers=JSON_TYPE)
        assert response.status_code == status
        if left_s is None:
            assert site.backend().requests == []
            assert "the body took 30.5 s" in response.json()["error"]["message"]
            assert site.timed() == 0
        else:
            [asked] = site.backend().requests
            assert left_s - 1 < asked.timeout_s <= left_s

    async def test_more_than_a_process_may_hold_are_refused_before_their_body_is_read(
        self, open_site
    ) -> None:
        site = open_site(max_requests_under_way=1)
        begun, end = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            begun.set()
            await end.wait()
            yield json.dumps(embeddings_body()).encode()

        first = asyncio.create_task(site.client.post(EMBEDDINGS, content=slow(), headers=JSON_TYPE))
        await begun.wait()
        refused = await site.client.post(EMBEDDINGS, content=b"{", headers=JSON_TYPE)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert refused.json()["error"]["code"] == "queue_full"
        assert "1 requests are under way" in refused.json()["error"]["message"]
        assert (await site.client.get("/v2/health/live")).status_code == 200
        end.set()
        assert (await first).status_code == 200
        again = await site.client.post(EMBEDDINGS, json=embeddings_body())
        assert again.status_code == 200

    async def test_a_length_that_is_no_number_is_no_internal_error(self, site) -> None:
        headers = {**JSON_TYPE, "Content-Length": "²".encode("latin-1")}
        response = await site.client.post(EMBEDDINGS, content=padded_body(99), headers=headers)
        assert response.status_code in (200, 400)


class TestHeaders:
    async def test_an_answer_names_its_variant_and_its_phases(self, site) -> None:
        response = await site.client.post(EMBEDDINGS, json=embeddings_body())
        assert (response.headers["X-Model"], response.headers["X-Variant"]) == ("minilm", "int4")
        assert re.fullmatch(
            r"queue;dur=1\.000, tokenize;dur=2\.000, core_wait;dur=3\.000, forward;dur=4\.000, "
            r"total;dur=\d+\.\d{3}",
            response.headers["Server-Timing"],
        )

    async def test_so_does_one_of_the_open_inference_protocol(self, site) -> None:
        path = "/v2/models/minilm/versions/int4/infer"
        response = await site.client.post(path, json=infer_body())
        assert (response.headers["X-Model"], response.headers["X-Variant"]) == ("minilm", "int4")
        assert response.headers["Server-Timing"].count("dur=") == 5

    async def test_an_error_of_a_variant_names_it_and_the_total(self, site) -> None:
        site.backend().failure = NotReady("loading")
        response = await site.client.post(EMBEDDINGS, json=embeddings_body())
        assert (response.headers["X-Model"], response.headers["X-Variant"]) == ("minilm", "int4")
        assert re.fullmatch(r"total;dur=\d+\.\d{3}", response.headers["Server-Timing"])

    async def test_an_answer_of_no_variant_names_none(self, gateway) -> None:
        for path in ("/healthz", "/no/such/route"):
            response = await gateway.client.get(path)
            assert "X-Variant" not in response.headers
            assert response.headers["Server-Timing"].startswith("total;dur=")


class TestMetrics:
    async def test_a_request_is_counted_and_timed_once(self, site) -> None:
        for number in range(1, 4):
            await site.client.post(EMBEDDINGS, json=embeddings_body())
            assert site.counted() == {(INT4, "200"): number}
            assert site.timed() == number

    async def test_a_refused_request_is_counted_but_not_timed(self, site) -> None:
        site.backend().failure = QueueFull("full")
        await site.client.post(EMBEDDINGS, json=embeddings_body())
        assert site.counted() == {(INT4, "429"): 1}
        assert site.timed() == 0

    async def test_each_variant_and_status_has_its_own_series(self, gateway) -> None:
        gateway.backend("minilm", "fp32").failure = QueueFull("full")
        for model, route in (
            ("minilm", EMBEDDINGS),
            ("minilm:fp32", EMBEDDINGS),
            ("sentiment", CLASSIFY),
            ("sentiment", EMBEDDINGS),
        ):
            await gateway.client.post(route, json={"model": model, "input": "x"})
        assert gateway.counted() == {
            (Labels("minilm", "bf16", "embeddings"), "200"): 1,
            (Labels("minilm", "fp32", "embeddings"), "429"): 1,
            (Labels("sentiment", "fp32", "classification"), "200"): 1,
            (Labels("sentiment", "fp32", "classification"), "422"): 1,
        }

    async def test_the_open_inference_protocol_counts_under_the_model_s_task(self, site) -> None:
        await site.client.post("/v2/models/minilm/versions/int4/infer", json=infer_body())
        assert site.counted() == {(INT4, "200"): 1}

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", "/no/such/route", None),
            ("POST", "/no/such/route", {}),
            ("GET", EMBEDDINGS, None),
            ("POST", "/v1/models", {}),
            ("POST", "/v2/models/made-up/infer", infer_body()),
            ("POST", "/v2/models/minilm/versions/made-up/infer", infer_body()),
        ],
    )
    async def test_what_does_not_exist_makes_no_series(self, gateway, method, path, body) -> None:
        response = await gateway.client.request(method, path, json=body)
        assert response.status_code in (404, 405)
        assert gateway.counted() == {}

    @pytest.mark.parametrize("model", ["made-up", "minilm:made-up"])
    async def test_an_unknown_choice_makes_no_series(self, gateway, model: str) -> None:
        await gateway.client.post(EMBEDDINGS, json={"model": model, "input": "x"})
        assert gateway.counted() == {}

    @pytest.mark.parametrize(("method", "path"), [("POST", "/nothing"), ("POST", "/v1/models")])
    async def test_a_replica_counts_no_route_that_does_not_exist(
        self, replica, method: str, path: str
    ) -> None:
        await replica.client.request(method, path, json={})
        assert replica.counted() == {}

    async def test_only_inference_is_counted(self, site) -> None:
        for path in ("/healthz", "/v1/models", "/v2", "/v2/models/minilm", "/v2/health/ready"):
            assert (await site.client.get(path)).is_success
        assert site.counted() == {}

    async def test_a_replica_counts_what_it_refuses(self, replica) -> None:
        await replica.client.post(EMBEDDINGS, content=b"{", headers=JSON_TYPE)
        await replica.client.post(EMBEDDINGS, json={"input": ""})
        assert replica.counted() == {(INT4, "400"): 1, (INT4, "422"): 1}

    async def test_a_client_that_leaves_is_counted_as_499(self, site: Site, monkeypatch) -> None:
        waiting = asyncio.Event()

        async def never(request: object) -> None:
            waiting.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(site.backend(), "infer", never)
        request = asyncio.create_task(site.client.post(EMBEDDINGS, json=embeddings_body()))
        await waiting.wait()
        request.cancel()
        await asyncio.wait([request])
        assert site.counted() == {(INT4, "499"): 1}
        assert site.timed() == 1

    async def test_a_request_that_hits_its_deadline_is_timed(self, site: Site) -> None:
        site.backend().failure = DeadlineExceeded("no answer within 30 s")
        await site.client.post(EMBEDDINGS, json=embeddings_body())
        assert site.counted() == {(INT4, "504"): 1}
        assert site.timed() == 1

    async def test_a_client_that_leaves_while_it_sends_is_counted_as_499(self, replica) -> None:
        scope = {"type": "http", "method": "POST", "path": EMBEDDINGS, "headers": []}

        async def disconnect() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            raise AssertionError("nobody is there to answer")

        with pytest.raises(asyncio.CancelledError):
            await replica.edge(scope, disconnect, send)
        assert replica.counted() == {(INT4, "499"): 1}
        assert replica.timed() == 0


class TestLog:
    async def test_one_line_says_what_was_answered_how_fast(self, site, log) -> None:
        headers = {"X-Request-Id": "abc"}
        await site.client.post(EMBEDDINGS, json=embeddings_body(), headers=headers)
        [line] = log.messages
        assert re.fullmatch(
            r"POST (/minilm/int4)?/v1/embeddings 200 model=minilm variant=int4 queue=1\.00ms "
            r"tokenize=2\.00ms core_wait=3\.00ms forward=4\.00ms total=\d+\.\d\dms id=abc",
            line,
        )

    async def test_a_request_without_an_id_gets_one_of_its_own(self, site, log) -> None:
        for _ in range(2):
            await site.client.get("/healthz")
        first, second = (line.rpartition(" id=")[2] for line in log.messages)
        assert len(first) == len(second) == 32
        assert first != second

    async def test_a_long_id_is_cut(self, site, log) -> None:
        await site.client.get("/healthz", headers={"X-Request-Id": "x" * 500})
        assert log.messages[0].endswith(" id=" + "x" * 128)

    @pytest.mark.parametrize("raw", [b"\xff\xfe", b"a\x85b", b"\xc3\xa4", b"\x01"])
    async def test_an_id_of_other_bytes_is_answered_and_logged_in_one_line(
        self, site, log, raw: bytes
    ) -> None:
        headers = {b"X-Request-Id": raw, b"Content-Type": b"application/json"}
        response = await site.client.post(EMBEDDINGS, content=padded_body(99), headers=headers)
        assert response.status_code == 200
        assert log.messages[0].isascii()
        assert log.messages[0].isprintable()

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"dimensions": 99},
            {"input": [SECRET, ""]},
            {"input": SECRET * 20},
            {"model": "sentiment"},
            {SECRET: 1},
            {"variant": SECRET},
            {"user": SECRET},
        ],
    )
    async def test_no_text_of_a_request_is_logged(self, site, log, changes) -> None:
        await site.client.post(EMBEDDINGS, json=embeddings_body(**{"input": SECRET, **changes}))
        await site.client.post(EMBEDDINGS, content=f'{{"{SECRET}'.encode(), headers=JSON_TYPE)
        await site.client.post("/v2/models/minilm/infer", json=infer_body(SECRET, id=SECRET))
        assert len(log.messages) == 3
        assert SECRET not in log.text

    async def test_neither_the_query_nor_the_key_is_logged(self, open_site, log) -> None:
        headers = {"Authorization": "Bearer hush"}
        await open_site(api_key="hush").client.get("/v1/models?q=whisper", headers=headers)
        assert "hush" not in log.text
        assert "whisper" not in log.text

    async def test_a_path_cannot_forge_a_line(self, site, log) -> None:
        await site.client.get("/nothing%0aPOST /v1/embeddings 200")
        assert "\n" not in log.messages[0]


async def test_requests_in_flight_are_known_until_their_answer(site: Site, monkeypatch) -> None:
    seen = []

    async def fail(request: object) -> None:
        seen.append(site.edge.in_flight)
        raise NotReady("loading")

    monkeypatch.setattr(site.backend(), "infer", fail)
    await site.client.post(EMBEDDINGS, json=embeddings_body())
    assert (seen, site.edge.in_flight) == ([1], 0)


async def test_a_lifespan_passes_untouched(site) -> None:
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: dict[str, str]) -> None:
        sent.append(message["type"])
        raise asyncio.CancelledError

    await asyncio.wait([asyncio.ensure_future(site.edge({"type": "lifespan"}, receive, send))])
    assert sent[0] == "lifespan.startup.complete"
    assert site.counted() == {}


async def test_a_websocket_is_refused_in_our_shape(site) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await site.edge({"type": "websocket", "path": "/v1/realtime", "headers": []}, receive, send)
    start, body = sent
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 405)
    assert json.loads(body["body"])["error"]["message"].startswith("no WebSockets here")
    assert site.counted() == {}
