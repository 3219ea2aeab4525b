"""What HAProxy says itself has our shape, and headers that Ray cannot read do not reach it."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.app.haproxy_answers import write_edits
from serving.app.ray_environment import _haproxy_binary

HEAD_S = 1
LIMITS = {"minilm--int8": 2}

# As Ray Serve writes it, in the lines that are edited.
CONFIGURATION = """global
    maxconn 100
    tune.bufsize 65536
defaults
    mode http
    timeout connect 2s
    timeout client 2s
    timeout server 1s
    option abortonclose
    errorfile 502 /nowhere
    errorfile 503 /nowhere
    errorfile 504 /nowhere
frontend http_frontend
    bind 127.0.0.1:{port}
    http-request return status 200 content-type application/json string "[]" if {{ path /-/routes }}
    use_backend dead if {{ path_beg /dead }}
    use_backend silent if {{ path_beg /silent }}
    use_backend echo if {{ path_beg /echo }}
    use_backend http-minilm--int8 if {{ path_beg /minilm/int8 }}
    use_backend strict if {{ path_beg /strict }}
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \\'%[path]\\' not found."
backend dead
    server gone 127.0.0.1:{free}
backend http-minilm--int8
    server one 127.0.0.1:{silent}
backend silent
    server silent 127.0.0.1:{silent}
backend strict
    server strict 127.0.0.1:{strict}
backend echo
    http-request return status 200 content-type text/plain lf-string "%[req.hdrs]"
"""

REFUSALS = {
    b"/strict/uvicorn": b"text/plain; charset=utf-8",
    b"/strict/ours": b"application/json",
    b"/strict/preflight": b"text/plain; charset=utf-8\r\nAccess-Control-Allow-Methods: GET, POST",
}


def refuse_all(server: socket.socket) -> None:
    """Answer 400, in the type that the path says."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:  # closed
            return
        with connection:
            path = connection.recv(65536).split(b" ")[1]
            connection.sendall(
                b"HTTP/1.1 400 Bad Request\r\nContent-Type: " + REFUSALS[path] + b"\r\n"
                b"Content-Length: 7\r\nConnection: close\r\n\r\nrefused"
            )


Ask = Callable[..., tuple[int, dict[str, str], str]]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Sends bytes to a real HAProxy; returns status (0 of nothing), headers and body."""
    binary = _haproxy_binary()
    if binary is None:
        pytest.skip("no HAProxy here")
    folder = tmp_path_factory.mktemp("haproxy")
    listening, silent, free, strict = (socket.socket() for _ in range(4))
    for one in (listening, silent, free, strict):
        one.bind(("127.0.0.1", 0))
    silent.listen()
    strict.listen()
    threading.Thread(target=refuse_all, args=(strict,), daemon=True).start()
    port = listening.getsockname()[1]
    listening.close()
    file = folder / "haproxy.cfg"
    file.write_text(
        CONFIGURATION.format(
            port=port,
            free=free.getsockname()[1],
            silent=silent.getsockname()[1],
            strict=strict.getsockname()[1],
        )
    )
    # Ray starts HAProxy anew with the same file.
    for _ in range(2):
        subprocess.run(["sed", "-i", "-f", write_edits(folder, HEAD_S, LIMITS), file], check=True)
    process = subprocess.Popen([binary, "-f", file])

    def send(request: bytes, close: bool = False) -> tuple[int, dict[str, str], str]:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request)
            if close:
                connection.shutdown(socket.SHUT_WR)
            connection.settimeout(10)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        if not answer:
            return 0, {}, ""
        head, _, body = answer.partition(b"\r\n\r\n")
        line, *headers = head.decode("latin-1").split("\r\n")
        named = dict(header.lower().split(": ", 1) for header in headers)
        return int(line.split()[1]), named, body.decode("latin-1")

    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.05)
    yield send
    process.terminate()
    process.wait()
    for one in (silent, free, strict):
        one.close()


def get(path: str, *headers: bytes) -> bytes:
    lines = [f"GET {path} HTTP/1.1".encode(), b"Host: a", b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "status", "code", "retry"),
    [
        (get("/v1/models"), 503, "variant_not_ready", "1"),
        (get("/dead/v1/models"), 503, "variant_not_ready", "1"),
        (get("/silent/v1/models"), 504, "deadline_exceeded", None),
    ],
    ids=["starting", "no replica", "no answer"],
)
def test_every_answer_of_its_own_has_our_shape(
    ask: Ask, request_: bytes, status: int, code: str, retry: str | None
) -> None:
    found, headers, body = ask(request_)
    error = json.loads(body)["error"]
    assert (found, error["code"], headers.get("retry-after")) == (status, code, retry)
    assert headers["content-type"] == "application/json"
    assert set(error) == {"message", "type", "code", "param"}
    assert int(headers["content-length"]) == len(body)


def test_a_sender_that_closes_its_side_is_answered_in_our_shape(ask: Ask) -> None:
    found, _, body = ask(get("/silent/v1/models"), close=True)
    assert found in (400, 504)
    assert json.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (get("/echo", b"A: " + b"x" * 70_000), 400),
        (get("/echo", b"Transfer-Encoding: identity, chunked"), 422),
        (b"GET /echo HTTP/1.1\r\nHost: a\r\n", 408),
    ],
)
def test_what_is_no_whole_request_gets_a_page_of_html(
    ask: Ask, request_: bytes, status: int
) -> None:
    """The exception that ``docs/deployment.md`` states; HAProxy has it compiled in."""
    found, headers, _ = ask(request_)
    assert (found, headers["content-type"]) == (status, "text/html")


def test_what_is_more_than_a_process_may_have_is_refused(ask: Ask) -> None:
    """The server behind says nothing, so that three that are let through are under way for 1 s."""
    post = get("/minilm/int8/v1/embeddings").replace(b"GET", b"POST")
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, [post] * 6))
        gets = list(pool.map(ask, [get("/minilm/int8/v2/health/ready")] * 6))
    assert sorted(status for status, _, _ in answers) == [429] * 4 + [504] * 2
    assert {status for status, _, _ in gets} == {504}
    _, headers, body = next(answer for answer in answers if answer[0] == 429)
    assert (headers["retry-after"], headers["content-type"]) == ("1", "application/json")
    assert json.loads(body)["error"]["code"] == "queue_full"


def test_a_client_that_sends_nothing_is_sent_nothing(ask: Ask) -> None:
    assert ask(b"") == (0, {}, "")


def test_what_the_server_behind_cannot_parse_is_said_in_our_shape(ask: Ask) -> None:
    found, headers, body = ask(get("/strict/uvicorn"))
    assert (found, headers["content-type"]) == (400, "application/json")
    assert "no HTTP/1.1" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("length", [2**64, 2**64 + 1, 10**16])
def test_a_length_that_haproxy_would_misread_is_refused(ask: Ask, length: int) -> None:
    found, headers, body = ask(get("/echo", f"Content-Length: {length}".encode()))
    assert (found, headers["content-type"]) == (400, "application/json")
    assert "no HTTP/1.1" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n", 405),
        (f"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {2**64}\r\n\r\n".encode(), 400),
    ],
    ids=["CONNECT in pieces", "2**64"],
)
def test_what_follows_a_refused_head_is_no_request(ask: Ask, request_: bytes, status: int) -> None:
    """HAProxy takes it for no body."""
    found, headers, body = ask(request_ + get("/echo"))
    assert (found, headers["connection"]) == (status, "close")
    assert set(json.loads(body)["error"]) == {"message", "type", "code", "param"}


def test_what_the_routes_refuse_themselves_passes(ask: Ask) -> None:
    found, headers, body = ask(get("/strict/ours"))
    assert (found, headers["content-type"], body) == (400, "application/json", "refused")


def test_a_refused_preflight_keeps_its_words_and_headers(ask: Ask) -> None:
    found, headers, body = ask(get("/strict/preflight").replace(b"GET", b"OPTIONS", 1))
    assert (found, headers["content-type"], body) == (400, "text/plain; charset=utf-8", "refused")
    assert headers["access-control-allow-methods"] == "get, post"


def test_headers_of_20_kilobytes_are_let_through(ask: Ask) -> None:
    found, _, body = ask(get("/echo", b"A: " + b"x" * 20_000))
    assert (found, body.count("x")) == (200, 20_000)


@pytest.mark.parametrize(
    "name",
    [
        *("X-Request-Id", "x-session-id", "X_Session-ID", "serve_multiplexed_model_id"),
        *("Serve-Multiplexed_Model-Id", "traceparent", "tracestate"),
    ],
)
def test_what_ray_cannot_decode_does_not_reach_it(ask: Ask, name: str) -> None:
    _, _, kept = ask(get("/echo", f"{name}: abc 1".encode()))
    assert f"{name.lower()}: abc 1" in kept.lower()
    found, _, dropped = ask(get("/echo", name.encode() + b": abc\xff\xfe", b"other: \xff"))
    assert found == 200
    assert name.lower() not in dropped.lower()
    assert "other:" in dropped


@pytest.mark.parametrize("method", ["FOO", "get", "PROPFIND"])
def test_a_method_that_no_route_has(ask: Ask, method: str) -> None:
    found, headers, body = ask(get("/echo").replace(b"GET", method.encode(), 1))
    assert (found, json.loads(body)["error"]["code"]) == (405, "method_not_allowed")
    assert headers["allow"] == "get, head, post"  # in small letters as all headers here


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_methods_that_the_routes_answer_reach_them(ask: Ask, method: str) -> None:
    assert ask(get("/echo").replace(b"GET", method.encode(), 1))[0] == 200


@pytest.mark.parametrize("path", ["/-/routes", "/-/ROUTES", "/-/routes?x=1"])
def test_ray_s_list_of_models_is_not_shown(ask: Ask, path: str) -> None:
    found, _, body = ask(get(path))
    assert (found, json.loads(body)["error"]["code"]) == (404, "not_found")


def test_the_server_as_a_whole_is_no_route(ask: Ask) -> None:
    found, _, body = ask(get("*").replace(b"GET", b"OPTIONS", 1))
    assert (found, json.loads(body)["error"]["code"]) == (404, "not_found")


def test_a_whole_address_is_the_path_in_it(ask: Ask) -> None:
    assert ask(get("http://a/echo"))[0] == 200


def test_a_client_cannot_change_how_ray_waits(ask: Ask) -> None:
    _, _, body = ask(
        get("/echo", b"x-request-timeout-seconds: 0.001", b"x-request-disconnect-disabled: ?1")
    )
    assert "x-request" not in body
