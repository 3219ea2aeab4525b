"""The command, against a server in a thread of its own."""

from __future__ import annotations

import itertools
import json
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from loadtests import libraries
from loadtests.results import read_results
from serving.cli import app

PLAN = """
scenarios:
  - {model: m, operation: classify, variants: [a, b], inputs: {synthetic: {}},
     arrivals: {kind: poisson, rate: 100}, slo: {latency_ms: 60000}}
rounds: 2
duration_s: 0.2
warmup_s: 0
max_lag_share: 1
"""


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, {"data": [{"label": "positive"}]})

    def do_GET(self) -> None:
        self._answer(404, {})

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["loadtest", *map(str, arguments)])
    return result.exit_code, result.output


def test_a_run_writes_its_results_and_prints_a_table(tmp_path, url) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    status, output = run(tmp_path / "plan.yaml", "--url", url, "--out", tmp_path / "out")
    assert status == 0
    results = read_results(tmp_path / "out")
    assert [variant.variant for variant in results.scenarios[0].variants] == ["a", "b"]
    assert results.scenarios[0].variants[1].agreement is not None
    assert "m: classify" in output
    assert "1.0000" in output


def test_a_run_that_is_not_valid_says_so_and_has_a_status_of_its_own(tmp_path, url) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN.replace("lag_share: 1", "lag_share: 1e-9"))
    status, output = run(tmp_path / "plan.yaml", "--url", url, "--out", tmp_path / "out")
    assert status == 2
    assert "NOT VALID: m, a: the generator lagged" in output
    assert not read_results(tmp_path / "out").is_valid


def test_ctrl_c_writes_what_was_found(tmp_path, url, monkeypatch) -> None:
    """In a process of its own, as at a terminal: the signal could end the one that tests."""
    answer, numbers = Answering.do_POST, itertools.count()
    (tmp_path / "plan.yaml").write_text(PLAN.replace("rounds: 2", "rounds: 1000"))
    command = [*(sys.executable, "-m", "serving", "loadtest", str(tmp_path / "plan.yaml"))]
    command += ["--url", url, "--out", str(tmp_path / "out")]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # What a shell runs in the background inherits that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )

    def do_post(self: Answering) -> None:
        if next(numbers) == 60:
            running.send_signal(signal.SIGINT)
        answer(self)

    monkeypatch.setattr(Answering, "do_POST", do_post)
    output, _ = running.communicate(timeout=300)
    assert running.returncode == 2, output
    assert "NOT VALID: interrupted in round" in output
    assert read_results(tmp_path / "out").scenarios[0].variants[0].ok
    assert (tmp_path / "out" / "report.html").exists()


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_run(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    status, output = run("smoke", "--url", "http://127.0.0.1:1", "--out", tmp_path / "file" / "out")
    assert (status, "Traceback" in output) == (1, False)
    assert "not a folder that can be written to" in " ".join(output.split())


def test_users_beyond_the_limit_of_open_files_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 4096))
    closed = PLAN.replace("kind: poisson, rate: 100", "kind: closed, users: 5000")
    (tmp_path / "plan.yaml").write_text(closed)
    status, output = run(tmp_path / "plan.yaml", "--url", "http://127.0.0.1:1")
    assert (status, "Traceback" in output) == (1, False)
    assert "scenarios[0].arrivals.users: 5000 connections need 5100 open files" in " ".join(
        output.split()
    )


@pytest.mark.parametrize(
    ("plan", "message"),
    [("no-such-plan", "no plan of that name"), ("smoke", "does not answer")],
)
def test_a_mistake_is_one_message(tmp_path, plan, message) -> None:
    status, output = run(plan, "--url", "http://127.0.0.1:1", "--out", tmp_path / "out")
    assert (status, "Traceback" in output) == (1, False)
    assert message in " ".join(output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [["loadtest", "smoke"], ["report", "no-such-run"]])
def test_a_missing_library_is_named_with_the_extra(
    monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr(libraries, "MODULES", (*libraries.MODULES, "not_installed_here"))
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "load tests need not_installed_here, which the extra loadtest brings" in result.output
    assert "pip install 'quantserve[loadtest]'" in result.output
