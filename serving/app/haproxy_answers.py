"""What HAProxy says itself, in the shape of our errors, and what it does not let through.

Ray Serve has no setting for these, so the file that it writes for HAProxy is edited by ``sed``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path

from serving.errors import (
    DeadlineExceeded,
    Malformed,
    MethodNotAllowed,
    NotReady,
    QueueFull,
    RequestError,
    Unknown,
)

_UNREADABLE = (
    "the request could not be read whole: it is no HTTP/1.1, or its sender closed the connection "
    "before the answer"
)
_NO_REPLICA = (
    "no replica of this variant takes requests now: it starts, or has just ended and is replaced; "
    "retry later"
)

_ANSWERS: dict[int, RequestError] = {
    400: Malformed(_UNREADABLE),
    408: Malformed("the request did not arrive in time; send it whole, or close the connection"),
    500: NotReady(_NO_REPLICA, retry_after_s=1),
    502: NotReady(_NO_REPLICA, retry_after_s=1),
    503: NotReady(_NO_REPLICA, retry_after_s=1),
    504: DeadlineExceeded("no answer in time"),
}
"""By the status that HAProxy has for it."""

_STATUS_LINES = {
    400: "400 Bad Request",
    408: "408 Request Timeout",
    503: "503 Service Unavailable",
    504: "504 Gateway Timeout",
}

_HIDDEN = Unknown("no route GET /-/routes; /v1/models lists what is served")
"""Ray's page names every model, whoever asks: no key is looked at here."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
"""Which the routes answer in their words; of any other the server behind says in its own that it is
no HTTP."""

_UNKNOWN_METHOD = MethodNotAllowed("no route has this method; they take GET, HEAD or POST")

_NO_PATH = Unknown("no route without a path; /v1/models lists what is served")
"""Of ``OPTIONS *``, which no application has a prefix for, whether the gateway is there or not."""

_FULL = QueueFull(
    "as many requests are under way as may be; retry later, or ask another variant",
    retry_after_s=1,
)

_STARTING = NotReady("the service is starting; retry later", retry_after_s=1)

_DASHED = ("x-session-id", "serve-multiplexed-model-id")
_DECODED = [
    *("x-request-id", "traceparent", "tracestate"),
    *(
        first + "".join(map("".join, zip(dashes, rest, strict=True)))
        for first, *rest in (name.split("-") for name in _DASHED)
        for dashes in product("-_", repeat=len(rest))
    ),
]
"""Headers that Ray Serve reads as UTF-8, the last two with either dash in any place; with other
bytes in them it fails, whatever the route."""

_MAX_DIGITS = 15
"""Of a Content-Length."""

_OF_RAY = ("x-request-timeout-seconds", "x-request-disconnect-disabled")
"""With these a client would have Ray give a request up, in Ray's words, or work on for nobody."""


_LOOK_AFTER_SERVERS = (
    "option srvtcpka",
    "srvtcpka-idle 10s",
    "srvtcpka-intvl 5s",
    "srvtcpka-cnt 3",
)
"""A node that vanishes says nothing: the kernel asks for it, and gives the connection up after 25 s
without an answer. Who only hangs is answered for by his kernel, and has ``timeout server``."""


def write_edits(folder: Path, head_s: int, most_under_way: Mapping[str, int]) -> Path:
    """Write HAProxy's answers, and the script for ``sed`` that names them in its configuration.

    Args:
        folder: Where they stay while HAProxy runs.
        head_s: Seconds that a request's line and headers may take to arrive, from the first
            connection or byte on; then 408. Who has sent nothing at all is left without an answer,
            which a client that keeps connections in stock would take for that to its next request.
        most_under_way: Requests (POST) that one process of an application may have at once, by the
            application's name; HAProxy answers 429 to those beyond.
    """
    hidden, starting = folder / "hidden.json", folder / "starting.json"
    hidden.write_text(_body(_HIDDEN))
    starting.write_text(_body(_STARTING))
    no_path = folder / "no_path.json"
    no_path.write_text(_body(_NO_PATH))
    method = folder / "method.json"
    method.write_text(_body(_UNKNOWN_METHOD))
    # Closed then: what follows CONNECT is no body for HAProxy, whatever its headers say, and would
    # be read as the next request.
    lines = [
        "    http-request return status 405 content-type application/json hdr Connection close "
        f'hdr Allow "GET, HEAD, POST" file {method} if !{{ method {" ".join(_METHODS)} }}',
    ]
    lines += [
        "    http-request return status 404 content-type application/json "
        f"file {hidden} if {{ path -i /-/routes }}"
    ]
    lines += [
        "    http-request return status 404 content-type application/json "
        f"file {no_path} if !{{ path -m beg / }}"
    ]
    unreadable = folder / "unreadable.json"
    unreadable.write_text(_body(_ANSWERS[400]))
    # Of the server behind, whose parser refuses some of what HAProxy reads; our own are JSON, but
    # for a refused preflight's, which browsers' consoles show.
    lines += [
        "    http-response return status 400 content-type application/json "
        f"file {unreadable} if {{ status 400 }} {{ res.hdr(content-type) -m beg text/plain }} "
        "!{ res.hdr(access-control-allow-methods) -m found }"
    ]
    # HAProxy reads a length modulo 2**64: of 2**64 it would take the body for the next request.
    lines += [
        "    http-request return status 400 content-type application/json hdr Connection close "
        f"file {unreadable} if {{ req.hdr(content-length),length gt {_MAX_DIGITS} }}"
    ]
    lines += [f"    http-request del-header {name}" for name in _OF_RAY]
    lines += [_del_header_unless_printable(name) for name in _DECODED]
    defaults = [_error_file(folder, status, error) for status, error in _ANSWERS.items()]
    defaults += [f"    timeout http-request {head_s}s", "    option http-ignore-probes"]
    defaults += [f"    {line}" for line in _LOOK_AFTER_SERVERS]
    full = folder / "full.json"
    full.write_text(_body(_FULL))
    refusals = (_refusal_when_full(name, most, full) for name, most in most_under_way.items())
    script = folder / "answers.sed"
    script.write_text(
        # Ray's own, which are plain text and make 500 of everything.
        "/^ *errorfile [0-9]* /d\n"
        "/^ *timeout http-request /d\n/^ *option http-ignore-probes$/d\n"
        f"/^defaults$/a\\\n{_appended(defaults)}\n"
        f"/^frontend http_frontend$/a\\\n{_appended(lines)}\n"
        # What no application has a prefix for, while the gateway, which has them all, is missing.
        "s|^ *http-request return status 404 content-type text/plain lf-string .Path .*|"
        "    http-request return status 503 content-type application/json hdr Retry-After 1 "
        f"file {starting}|\n" + "".join(refusals)
    )
    return script


def _refusal_when_full(application: str, most: int, body: Path) -> str:
    """For ``sed``: lines for the application's backend, which is there once it is deployed.

    Denied, not returned, so that HAProxy counts it (``haproxy_backend_requests_denied_total``).
    """
    lines = [
        "    http-request set-var(txn.processes) nbsrv",
        "    http-request deny status 429 content-type application/json "
        f"hdr Retry-After {_FULL.retry_after_s} file {body} "
        f"if METH_POST {{ var(txn.processes) -m int gt 0 }} "
        f"{{ be_conn,div(txn.processes) -m int gt {most} }}",
    ]
    return f"/^backend http-{application}$/a\\\n{_appended(lines)}\n"


def _del_header_unless_printable(name: str) -> str:
    return f"    http-request del-header {name} if {{ req.fhdr({name}) -m reg [^[:print:]] }}"


def _error_file(folder: Path, status: int, error: RequestError) -> str:
    body = _body(error)
    status_line = _STATUS_LINES[408 if status == 408 else error.status]
    retry = f"Retry-After: {error.retry_after_s}\r\n" if error.retry_after_s else ""
    file = folder / f"{status}.http"
    file.write_text(
        f"HTTP/1.1 {status_line}\r\nContent-Type: application/json\r\n{retry}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n{body}"
    )
    return f"    errorfile {status} {file}"


def _body(error: RequestError) -> str:
    shown = {"message": error.message, "type": error.type, "code": error.code, "param": None}
    return json.dumps({"error": shown})


def _appended(lines: list[str]) -> str:
    # ``sed`` drops a line's leading blanks unless a backslash stands before them.
    return "\\\n".join(f"\\{line}" for line in lines)
