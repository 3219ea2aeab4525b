"""What HAProxy says itself has our shape, and headers that Ray cannot read do not reach it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from serving.app.haproxy_answers import write_edits
from serving.app.ray_environment import _haproxy_binary

# As Ray Serve writes it, in the lines that are edited.
CONFIGURATION = """global
    maxconn 100
    tune.bufsize 65536
defaults
    mode http
    timeout connect 2s
    timeout client 2s
    timeout http-request 1s
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
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \\'%[path]\\' not found."
backend dead
    server gone 127.0.0.1:{free}
backend silent
    server silent 127.0.0.1:{silent}
backend echo
    http-request return status 200 content-type text/plain lf-string "%[req.hdrs]"
"""

Ask = Callable[..., tuple[int, dict[str, str], str]]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Sends bytes to a real HAProxy; returns status, headers and body."""
    binary = _haproxy_binary()
    if binary is None:
        pytest.skip("no HAProxy here")
    folder = tmp_path_factory.mktemp("haproxy")
    listening, silent, free = socket.socket(), socket.socket(), socket.socket()
    for one in (listening, silent, free):
        one.bind(("127.0.0.1", 0))
    silent.listen()
    port = listening.getsockname()[1]
    listening.close()
    file = folder / "haproxy.cfg"
    file.write_text(
        CONFIGURATION.format(port=port, free=free.getsockname()[1], silent=silent.getsockname()[1])
    )
    # Ray starts HAProxy anew with the same file.
    for _ in range(2):
        subprocess.run(["sed", "-i", "-f", write_edits(folder), file], check=True)
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
    silent.close()
    free.close()


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
        (b"GET /echo HTTP/1.1\r\nHost: a\r\n", 408),
    ],
)
def test_what_is_no_whole_request_gets_a_page_of_html(
    ask: Ask, request_: bytes, status: int
) -> None:
    """The exception that ``docs/deployment.md`` states; HAProxy has it compiled in."""
    found, headers, _ = ask(request_)
    assert (found, headers["content-type"]) == (status, "text/html")


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


@pytest.mark.parametrize("path", ["/-/routes", "/-/ROUTES", "/-/routes?x=1"])
def test_ray_s_list_of_models_is_not_shown(ask: Ask, path: str) -> None:
    found, _, body = ask(get(path))
    assert (found, json.loads(body)["error"]["code"]) == (404, "not_found")


def test_a_client_cannot_change_how_ray_waits(ask: Ask) -> None:
    _, _, body = ask(
        get("/echo", b"x-request-timeout-seconds: 0.001", b"x-request-disconnect-disabled: ?1")
    )
    assert "x-request" not in body
