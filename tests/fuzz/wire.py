"""Requests whose bytes are wrong, and clients that are slow, or gone in the middle.

A case is made of its seed alone, so ``python -m tests.fuzz --replay SEED`` sends it again. What was
sent is read by h11, too, another implementation of HTTP: where all of it is HTTP, each request that
it finds is due an answer.
"""

from __future__ import annotations

import random
import re
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

import h11

from tests.fuzz.requests_that_are_right import right_requests
from tests.fuzz.verdict import fault

ANSWER_S = 60
"""Longest silence before an answer to whole requests; the service's own deadline is 30 s."""

REST_S = 0.15
"""How long an answer is waited for where none is due."""

SLOW_PAUSE_S = 0.02

LENGTHS = ("-1", "+5", "0x10", "1e3", "5, 5", "", " ", "18446744073709551616", "9" * 400, "5\x00")
CODINGS = (
    "chunked, chunked",
    "identity",
    "gzip, chunked",
    "xchunked",
    "chunked\x0b",
    "",
    "CHUNKED",
)
HEADERS = (
    *("Expect: 100-continue", "Expect: nothing", "Connection: upgrade\r\nUpgrade: websocket"),
    *(
        "X-Variant: \xff\xfe",
        "X-Variant: " + "a" * 70_000,
        "X-Request-Id: \x01\xff",
        "Host: a\r\nHost: b",
    ),
    *("Content-Encoding: gzip", "Content-Encoding: br", "TE: trailers", "Range: bytes=0-1"),
    *(" folded: a", "no colon", ": no name", "a b: c", "Content-Type: text/plain", "Trailer: Host"),
    *("Authorization: Bearer \xc3\xa9", "Authorization: Basic a", "Cookie: " + "a=b; " * 500),
    *("X-Forwarded-For: \x00", "Accept-Encoding: \xff", "Origin: null", "Max-Forwards: 0"),
    *(
        "X-SLO-Max-Latency-Ms: nan",
        "Inference-Header-Content-Length: 5",
        "Inference-Header-Content-Length: -1",
    ),
)
LINES = (
    *("GET / HTTP/1.1", "GET /v1/models", "GET /v1/models HTTP/0.9", "GET /v1/models HTTP/1.0"),
    *(
        "GET /v1/models HTTP/2.0",
        "GET /v1/models HTTP/1.10",
        "PRI * HTTP/2.0",
        "OPTIONS * HTTP/1.1",
    ),
    *("CONNECT localhost:80 HTTP/1.1", "TRACE / HTTP/1.1", "POST  /v1/embeddings  HTTP/1.1"),
    *(
        "GET http://localhost/v1/models HTTP/1.1",
        "GET //v1//models HTTP/1.1",
        "get /v1/models HTTP/1.1",
    ),
    *(
        "GET /v1/models?\xff=%ff%00 HTTP/1.1",
        "GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1",
        "\x16\x03\x01",
    ),
    *(
        "GET /v2/models/%00/versions/%ff HTTP/1.1",
        "POST /minilm/%F0%9F%98%80/v1/embeddings HTTP/1.1",
    ),
    *("GET /" + "a" * 20_000 + " HTTP/1.1", "GET /minilm/int4/../../v1/models HTTP/1.1", ""),
    *(
        "HEAD /metrics HTTP/1.1",
        "DELETE /v1/models HTTP/1.1",
        "GET /docs#a HTTP/1.1",
        "GET * HTTP/1.1",
    ),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One connection.

    Attributes:
        seed: That it is made of.
        parts: What is sent, with a pause between.
        reads_slowly: A few bytes at a time.
        resets_after: How many bytes of the answer are read before the connection is reset; None if
            it is read to its end.
    """

    seed: str
    parts: Sequence[bytes]
    reads_slowly: bool
    resets_after: int | None


def make_case(seed: str, key: str) -> Case:
    """The case of a seed."""
    draw = random.Random(seed)
    raw = b"".join(draw.choices(right_requests(key), k=draw.choice((1, 1, 1, 2, 3))))
    for _ in range(draw.choice((0, 1, 1, 2, 3))):
        raw = draw.choice(MUTATIONS)(draw, raw)
    is_slow = draw.random() < 0.05
    parts = _in_parts(draw, raw) if is_slow or draw.random() < 0.1 else [raw]
    resets_after = draw.choice((0, 1, 100, 1_000)) if draw.random() < 0.08 else None
    return Case(seed, parts, is_slow and draw.random() < 0.5, resets_after)


def run_case(case: Case, address: tuple[str, int]) -> str | None:
    """Send a case and read what comes; returns what is wrong with it, None if nothing is."""
    readings = _read_by_h11(b"".join(case.parts))
    with socket.create_connection(address, timeout=10) as connection:
        if case.reads_slowly:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        try:
            for part in case.parts:
                connection.sendall(part)
                if len(case.parts) > 1:
                    time.sleep(SLOW_PAUSE_S)
        except OSError:  # refused before it was whole; the answer may be lost with the rest
            pass
        if case.resets_after is not None:
            _read_some(connection, case.resets_after)
            _reset(connection)
            return None
        return _read_answers(connection, readings, case.reads_slowly)


@dataclass(frozen=True, slots=True)
class _Readings:
    """What h11 makes of the bytes: methods of whole requests, and what is left.

    Attributes:
        methods: Of whole requests.
        is_readable: Whether all of it is HTTP.
        is_whole: Whether nothing comes after the last whole request.
    """

    methods: Sequence[str]
    is_readable: bool
    is_whole: bool


def _read_by_h11(raw: bytes) -> _Readings:
    methods: list[str] = []
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    reader.receive_data(raw)
    method = "GET"
    try:
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Request):
                method = event.method.decode()
                if _has_unreadable_length(event):
                    return _Readings(methods, False, True)
            elif isinstance(event, h11.EndOfMessage):
                methods.append(method)
                reader.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                reader.send(h11.EndOfMessage())
                if reader.our_state is not h11.DONE or reader.their_state is not h11.DONE:
                    return _Readings(methods, True, True)
                reader.start_next_cycle()
            elif event is h11.NEED_DATA:
                is_over = reader.their_state is h11.IDLE and not reader.trailing_data[0]
                return _Readings(methods, True, is_over)
            elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return _Readings(methods, True, True)
    except h11.ProtocolError:
        return _Readings(methods, False, True)


def _has_unreadable_length(request: h11.Request) -> bool:
    """Whether a length is none for HAProxy: h11 takes any, and would wait for such a body."""
    lengths = (value for name, value in request.headers if name == b"content-length")
    return any(len(value) > 15 for value in lengths)


def _read_answers(connection: socket.socket, sent: _Readings, slowly: bool) -> str | None:
    """Read until as many answers are there as may come, the other side closes, or all is quiet."""
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
    size = 64 if slowly else 65_536
    # Whether a last request that is wrong is answered is the server's choice.
    methods = [*sent.methods, *([] if sent.is_whole and sent.is_readable else ["GET"])]
    for place in range(len(methods) + 1):
        is_surplus = place == len(methods)
        method = "GET" if is_surplus else methods[place]
        is_due = place < len(sent.methods) and sent.is_readable
        answer = _one_answer(connection, reader, method, ANSWER_S if is_due else REST_S, size)
        if isinstance(answer, str):
            return answer if is_due and answer.startswith("silence") else None
        status, headers, body, is_last = answer
        if is_surplus and sent.is_readable:
            return f"an answer more than requests: status {status}"
        if (wrong := fault(status, headers, body, may_be_unreadable=True)) is not None:
            return wrong
        if is_last:
            break
    return None


def _one_answer(
    connection: socket.socket, reader: h11.Connection, method: str, wait_s: float, size: int
) -> tuple[int, dict[str, str], bytes, bool] | str:
    """Status, headers and body of the next answer, and whether it is the last; or why none is."""
    try:
        reader.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
        reader.send(h11.EndOfMessage())
    except h11.LocalProtocolError:
        return "the connection is no HTTP any more"
    status, headers, body = 0, dict[str, str](), bytearray()
    connection.settimeout(wait_s)
    while True:
        try:
            event = reader.next_event()
        except h11.RemoteProtocolError as error:
            return f"no HTTP: {error}"
        if event is h11.NEED_DATA:
            try:
                reader.receive_data(connection.recv(size))
            except TimeoutError:
                return f"silence for {wait_s} s"
            except OSError as error:
                return f"the connection broke: {error}"
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            is_last = reader.their_state is not h11.DONE or reader.our_state is not h11.DONE
            if not is_last:
                reader.start_next_cycle()
            return status, headers, bytes(body), is_last
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return "closed without an answer"


def _read_some(connection: socket.socket, size: int) -> None:
    connection.settimeout(ANSWER_S if size else REST_S)
    try:
        while size > 0:
            got = connection.recv(size)
            if not got:
                return
            size -= len(got)
            connection.settimeout(1)
    except OSError:  # it goes away in any case
        pass


def _reset(connection: socket.socket) -> None:
    """Close at once, so that the other side is told with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _in_parts(draw: random.Random, raw: bytes) -> list[bytes]:
    cuts = sorted(draw.randrange(len(raw) + 1) for _ in range(draw.randint(1, 12)))
    return [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]


def _flip(draw: random.Random, raw: bytes) -> bytes:
    changed = bytearray(raw)
    for _ in range(draw.randint(1, 4)):
        if changed:
            changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def _insert(draw: random.Random, raw: bytes) -> bytes:
    at = draw.randrange(len(raw) + 1)
    what = draw.choice(
        (b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b"\r\n\r\n", b"\xff", b"{", b"0")
    )
    return raw[:at] + what * draw.choice((1, 1, 2, 1_000)) + raw[at:]


def _remove(draw: random.Random, raw: bytes) -> bytes:
    at = draw.randrange(len(raw) + 1)
    return raw[:at] + raw[at + draw.choice((1, 2, 10, 100)) :]


def _cut(draw: random.Random, raw: bytes) -> bytes:
    return raw[: draw.randrange(len(raw) + 1)]


def _with_length(draw: random.Random, raw: bytes) -> bytes:
    length = draw.choice((*LENGTHS, str(draw.randrange(2_000)))).encode("latin-1")
    found = re.search(rb"Content-Length: (\d+)", raw)
    if found is None:
        return _with_line(raw, b"Content-Length: " + length)
    if draw.random() < 0.5:
        return raw[: found.start(1)] + length + raw[found.end(1) :]
    return _with_line(raw, b"content-length: " + draw.choice((length, found[1])))


def _with_coding(draw: random.Random, raw: bytes) -> bytes:
    coding = draw.choice(("chunked", *CODINGS)).encode("latin-1")
    if b"Transfer-Encoding: chunked" in raw and draw.random() < 0.5:
        return raw.replace(b"Transfer-Encoding: chunked", b"Transfer-Encoding: " + coding, 1)
    return _with_line(raw, b"Transfer-Encoding: " + coding)


def _with_piece(draw: random.Random, raw: bytes) -> bytes:
    """Another size of a piece of a body: wrong, huge, negative, with an extension."""
    sizes = list(re.finditer(rb"\r\n([0-9a-f]+)\r\n", raw))
    if not sizes:
        return _with_coding(draw, raw)
    found = draw.choice(sizes)
    size = draw.choice((b"-1", b"fffffffffffffffff", b"0", b"g", b"", b"5;a=b", b"1 ", b"0x5"))
    return raw[: found.start(1)] + size + raw[found.end(1) :]


def _with_header(draw: random.Random, raw: bytes) -> bytes:
    return _with_line(raw, draw.choice(HEADERS).encode("latin-1"))


def _with_first_line(draw: random.Random, raw: bytes) -> bytes:
    _, _, rest = raw.partition(b"\r\n")
    return draw.choice(LINES).encode("latin-1") + b"\r\n" + rest


def _with_line(raw: bytes, line: bytes) -> bytes:
    first, _, rest = raw.partition(b"\r\n")
    return first + b"\r\n" + line + b"\r\n" + rest


def _line_ends(_: random.Random, raw: bytes) -> bytes:
    return raw.replace(b"\r\n", b"\n")


MUTATIONS = (
    *(_flip, _insert, _remove, _cut, _with_length, _with_length, _with_coding, _with_piece),
    *(_with_header, _with_header, _with_first_line, _with_first_line, _line_ends),
)
