"""The user of Locust, if Locust is there, against a server in a thread of its own."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class Answering(BaseHTTPRequestHandler):
    bodies: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def test_a_user_asks_a_variant_and_counts_it_under_its_name(monkeypatch) -> None:
    # Otherwise Locust's import would replace sockets and threads of all of the tests.
    monkeypatch.setenv("LOCUST_SKIP_MONKEY_PATCH", "1")
    env = pytest.importorskip("locust.env")
    monkeypatch.setenv("VARIANTS", "int4:2")
    monkeypatch.delitem(sys.modules, "loadtests.locustfile", raising=False)
    from loadtests.locustfile import User

    Answering.bodies = []
    counted: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setattr(User, "host", f"http://127.0.0.1:{server.server_port}")
        environment = env.Environment(user_classes=[User])
        environment.events.request.add_listener(lambda **given: counted.append(given))
        User(environment).ask()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    (body,) = Answering.bodies
    assert body["model"] == "minilm:int4"
    assert len(body["input"].split()) == 20
    assert [(given["name"], given["exception"]) for given in counted] == [("minilm:int4", None)]
