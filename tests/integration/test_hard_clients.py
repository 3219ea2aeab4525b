"""Clients that hold connections and give nothing for it: others are served, and they are let go."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from serving.app.ray_environment import CLUSTER_SETTINGS, HEAD_S
from tests.integration.demo_service import KEY
from tests.integration.running_service import RunningService

NUM_IDLE = 1_000
NUM_SLOW = 100
SPARE_FILES = 1_000
SPARE_S = 30
"""For a busy machine."""

SILENCE_S = int(CLUSTER_SETTINGS["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"])
ASKING = f"GET /openapi.json HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()
PIPELINED = 400
"""Answers of some 100 kB: more than the kernel keeps for a connection that is not read."""


@pytest.fixture
def connections(demo: RunningService) -> Iterator[list[socket.socket]]:
    """So many idle and slow ones; the last has asked much and reads nothing."""
    needed = NUM_IDLE + NUM_SLOW + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(needed, hard)), hard))
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", demo.port)
        opened = [
            stack.enter_context(socket.create_connection(address, timeout=10))
            for _ in range(NUM_IDLE + NUM_SLOW + 1)
        ]
        yield opened
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_holds_connections_hurts_nobody_and_is_let_go(
    client: httpx.Client, connections: list[socket.socket]
) -> None:
    slow, stalled = connections[NUM_IDLE:-1], connections[-1]
    begun = time.monotonic()
    for one in slow:
        one.sendall(b"GET /v1/models HTTP/1.1\r\nX-Slow: ")
    stalled.settimeout(1)
    with contextlib.suppress(TimeoutError):  # what was asked for is not taken any more
        stalled.sendall(ASKING * PIPELINED)
    body = {"model": "minilm:fp32", "input": "Others are served."}
    for number in range(20):
        for one in slow:
            with contextlib.suppress(OSError):
                one.sendall(b"a")
        assert client.post("/v1/embeddings", json=body).status_code == 200, number
    assert _num_held(connections[:-1], begun + HEAD_S + SPARE_S) == 0
    assert _is_held(stalled)
    while _is_held(stalled):
        assert time.monotonic() < begun + SILENCE_S + SPARE_S, "who reads nothing is still held"
        time.sleep(1)
    assert client.post("/v1/embeddings", json=body).status_code == 200


def _num_held(connections: list[socket.socket], until: float) -> int:
    """How many the other side has not closed until then."""
    with selectors.DefaultSelector() as selector:
        for one in connections:
            one.setblocking(False)
            selector.register(one, selectors.EVENT_READ)
        while (held := selector.get_map()) and time.monotonic() < until:
            for key, _ in selector.select(1):
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(OSError):
                    if key.fileobj.recv(65_536):
                        continue  # its 408 comes before the end
                selector.unregister(key.fileobj)
        return len(held)


def _is_held(connection: socket.socket) -> bool:
    """Whether the other side has not closed it; this one cannot see that before it reads."""
    here, there = connection.getsockname()[1], connection.getpeername()[1]
    return any(
        (found.laddr[1:], found.raddr[1:]) == ((there,), (here,))
        for found in psutil.net_connections("tcp4")
        if found.status == psutil.CONN_ESTABLISHED
    )
