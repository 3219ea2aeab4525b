"""Locust's users in a process of their own, for its import replaces sockets and threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import loadtests

LOCUSTFILE = Path(loadtests.__file__).parent / "locustfile.py"
NUM_USERS = 3


class Answering(BaseHTTPRequestHandler):
    bodies: list[dict[str, Any]]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def test_users_ask_variants_by_weight_and_are_counted_under_their_names() -> None:
    Answering.bodies = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "locust", "-f", LOCUSTFILE, "--headless", "--json"),
                *("--users", str(NUM_USERS), "--spawn-rate", "100", "--run-time", "4s"),
                *("--stop-timeout", "30"),
                *("--host", f"http://127.0.0.1:{server.server_port}", "--loglevel", "WARNING"),
            ],
            env={**os.environ, "VARIANTS": "fp32:0,int4:3", "OPERATION": "completions"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert done.returncode == 0, done.stderr
    [counted] = json.loads(done.stdout)
    assert (counted["name"], counted["num_failures"]) == ("minilm:int4", 0)
    assert {body["model"] for body in Answering.bodies} == {"minilm:int4"}
    # A user whose request is under way at the end counts no answer.
    assert 0 <= len(Answering.bodies) - counted["num_requests"] <= NUM_USERS
    assert all(len(body["prompt"].split()) == 20 for body in Answering.bodies)
    assert {body["stream"] for body in Answering.bodies} == {False}
