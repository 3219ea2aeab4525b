"""Requests in forms that no client here has: what HAProxy and the servers behind make of them."""

from __future__ import annotations

import gzip
import json
import socket
from typing import Any

import httpx
import pytest

from tests.integration.running_service import RunningService

BODIES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"model": "minilm", "input": "a good film"},
    "/minilm/int8-dynamic/v1/embeddings": {"input": "a good film"},
    "/v1/classify": {"model": "sentiment", "input": "a good film"},
    "/v1/rerank": {"model": "ranker", "query": "a", "documents": ["a good film"]},
    "/v1/completions": {"model": "smollm2:q4_1", "prompt": "a", "max_tokens": 1},
    "/v1/chat/completions": {
        "model": "smollm2:q4_1",
        "messages": [{"role": "user", "content": "a"}],
        "max_tokens": 1,
    },
    "/v2/models/minilm/infer": {
        "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a good film"]}]
    },
    "/v2/repository/index": {},
    "/tokenize": {"model": "smollm2:q4_1", "prompt": "a"},
    "/detokenize": {"model": "smollm2:q4_1", "tokens": [28]},
    "/v1/compare": {"model": "minilm", "input": "a good film"},
}
JSON_TYPE = "Content-Type: application/json"
STREAM = {"model": "smollm2:q4_1", "prompt": "a", "max_tokens": 3, "stream": True}


def head(method: str, path: str, *headers: str, version: str = "1.1", close: bool = True) -> bytes:
    """The beginning of a request, up to its body."""
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *headers]
    lines += ["Connection: close"] if close else []
    return "\r\n".join([*lines, "", ""]).encode()


def post(path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    """A whole request with a JSON content type."""
    given = (JSON_TYPE, f"Content-Length: {len(body)}", *headers)
    return head("POST", path, *given, version=version) + body


def chunked(body: bytes) -> bytes:
    """A body in pieces of seven bytes, with an extension and a trailer that mean nothing."""
    pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
    framed = b"".join(b"%x;a=b\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return framed + b"0\r\nX-Trailer: a\r\n\r\n"


def send(service: RunningService, *parts: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes, each further part after an interim answer, and read to the end.

    Returns:
        Status, headers by their names in small letters, and what follows them.
    """
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(parts[0])
        for part in parts[1:]:
            assert b"100 Continue" in connection.recv(65_536)
            connection.sendall(part)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    begin, _, body = answer.partition(b"\r\n\r\n")
    line, *headers = begin.decode("latin-1").split("\r\n")
    named = (header.partition(": ") for header in headers)
    return int(line.split()[1]), {name.lower(): value for name, _, value in named}, body


@pytest.mark.parametrize("path", BODIES)
def test_every_route_takes_its_body_in_every_form(service: RunningService, path: str) -> None:
    body = json.dumps(BODIES[path]).encode()
    squeezed = gzip.compress(body)
    expecting = (JSON_TYPE, "Expect: 100-continue", f"Content-Length: {len(body)}")
    requests = {
        "plain": (post(path, body),),
        "a slash more": (post(f"{path}/", body),),
        "slashes doubled": (post(path.replace("/", "//"), body),),
        "a query": (post(f"{path}?api-version=1", body),),
        "gzip": (post(path, squeezed, "Content-Encoding: gzip"),),
        "chunked": (head("POST", path, JSON_TYPE, "Transfer-Encoding: chunked") + chunked(body),),
        "chunked gzip": (
            head("POST", path, JSON_TYPE, "Transfer-Encoding: chunked", "Content-Encoding: gzip")
            + chunked(squeezed),
        ),
        "expect": (head("POST", path, *expecting), body),
        "HTTP/1.0": (post(path, body, version="1.0"),),
    }
    assert {form: send(service, *parts)[0] for form, parts in requests.items()} == dict.fromkeys(
        requests, 200
    )


@pytest.mark.parametrize("path", BODIES)
def test_other_methods_are_told_which_it_takes(service: RunningService, path: str) -> None:
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"):
        status, headers, body = send(service, head(method, path))
        assert (status, headers["allow"]) == (405, "POST")
        assert (body == b"") == (method == "HEAD")


@pytest.mark.parametrize(
    "path",
    [
        *("/health", "/healthz", "/v2/health/live", "/v2/health/ready", "/metrics", "/docs"),
        *("/openapi.json", "/v1/models", "/v1/models/minilm:fp32", "/v1/quality", "/v2"),
        *("/v2/models", "/v2/models/minilm", "/v2/models/minilm/ready"),
        *("/v2/models/minilm/versions/fp32/ready", "/minilm/fp32/v1/models"),
    ],
)
def test_head_is_get_without_the_body(service: RunningService, path: str) -> None:
    for given in (path, f"{path}/"):
        status, headers, body = send(service, head("HEAD", given))
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 0
    status, headers, _ = send(service, head("OPTIONS", path))
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_a_stream_for_http_1_0_has_no_frames_in_it(service: RunningService) -> None:
    request = post("/v1/completions", json.dumps(STREAM).encode(), version="1.0")
    status, headers, body = send(service, request)
    assert (status, headers["content-length"]) == (200, str(len(body)))
    assert "transfer-encoding" not in headers
    assert body.startswith(b"data: {")
    assert body.endswith(b"data: [DONE]\n\n")


def test_a_connection_serves_several_requests(service: RunningService) -> None:
    """One after the other, and sent together."""
    body = json.dumps(BODIES["/v1/embeddings"]).encode()
    length = f"Content-Length: {len(body)}"
    kept = head("POST", "/v1/embeddings", JSON_TYPE, length, close=False) + body
    _, _, rest = send(service, kept * 2 + post("/v1/embeddings", body))
    assert rest.count(b"HTTP/1.1 200 OK") == 2  # the first one's is read already


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (head("FOO", "/v1/models"), 405, "method_not_allowed"),
        (head("get", "/v1/models"), 405, "method_not_allowed"),
        (post("/v1/embeddings", b"{}", "Content-Encoding: br"), 400, "malformed_request"),
        (post("/v1/embeddings", b" " * 3_000_000), 413, "body_too_large"),
        (head("GET", "/no/such/route"), 404, "not_found"),
    ],
    ids=["method", "small letters", "encoding", "size", "route"],
)
def test_what_is_refused_has_our_shape(
    service: RunningService, request_: bytes, status: int, code: str
) -> None:
    found, headers, body = send(service, request_)
    error = json.loads(body)["error"]
    assert (found, error["code"], headers["content-type"]) == (status, code, "application/json")
    assert set(error) == {"message", "type", "code", "param"}


@pytest.mark.parametrize("path", ["/v1/models", "/minilm/int8-dynamic/v1/models"])
def test_a_websocket_is_refused_in_our_shape(service: RunningService, path: str) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = httpx.get(f"{service.url}{path}", headers=headers, timeout=30)
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/v1/embeddings", "/minilm/int8-dynamic/v1/embeddings"])
@pytest.mark.parametrize(
    "name", ["X-Request-Id", "x-session-id", "serve_multiplexed_model_id", "traceparent", "X-Any"]
)
def test_bytes_that_are_no_text_in_a_header_are_harmless(
    service: RunningService, path: str, name: str
) -> None:
    body = json.dumps({"model": "minilm", "input": "x"}).encode()
    request = post(path, body, f"{name}: VALUE").replace(b"VALUE", b"\xff\xfe")
    assert send(service, request)[0] == 200
