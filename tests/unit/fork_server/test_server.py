"""A real fork server, and stand-ins that ask it for workers; instead of Ray's there is a script."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.fork_server import stand_in
from serving.fork_server.stand_in import FOLDER_VARIABLE, PRELOADED_VARIABLE
from serving.fork_server.starting import ForkServers

LIMIT_S = 60
JOB = {"RAY_JOB_ID": "01000000", "RAY_RAYLET_PID": "77"}

# Writes to a file what it is, as a worker of Ray's would see it.
WORKER = """
import json, os, sys
seen = {
    "arguments": sys.argv[1:],
    "name": __name__,
    "has_early": "wave" in sys.modules,
    "has_late": "chunk" in sys.modules,
    "parent": os.getppid(),
    "group_is_own": os.getpgid(0) == os.getpid(),
    "job": os.environ["RAY_JOB_ID"],
    "preloaded": os.environ.get("QUANTSERVE_PRELOADED"),
    "only_here": os.environ.get("ONLY_HERE"),
    "folder": os.getcwd(),
}
print("to standard output", flush=True)
with open(sys.argv[1] + ".new", "w") as file:
    json.dump(seen, file)
os.rename(sys.argv[1] + ".new", sys.argv[1])
"""


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    script = tmp_path / stand_in.WORKER
    script.write_text(WORKER)
    return script


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[ForkServers]:
    servers = ForkServers(tmp_path, {"serving": ["wave"], "torch": []}, ["chunk"])
    servers.start()
    yield servers
    servers.close()


def ask(
    worker: Path, *flags: str, environment: dict[str, str] | None = None
) -> tuple[dict[str, object], str]:
    """Start a worker as Ray would; returns what it saw, and what it wrote to standard output."""
    seen = worker.parent / "seen.json"
    seen.unlink(missing_ok=True)
    command = [sys.executable, "-I", "-S", stand_in.__file__, sys.executable]
    done = subprocess.run(
        [*command, str(worker), str(seen), *flags],
        env={**os.environ, FOLDER_VARIABLE: str(worker.parent), **JOB, **(environment or {})},
        cwd=worker.parent,
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    deadline = time.monotonic() + LIMIT_S
    while not seen.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return json.loads(seen.read_text()), done.stdout


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.usefixtures("servers")
def test_a_worker_is_a_fork_with_its_own_environment(worker: Path, servers: ForkServers) -> None:
    wait_for(worker.parent / "serving")
    seen, output = ask(worker, "--flag=1", environment={"ONLY_HERE": "yes"})
    assert seen == {
        "arguments": [str(worker.parent / "seen.json"), "--flag=1"],
        "name": "__main__",
        "has_early": True,
        "has_late": True,
        "parent": servers.process_ids["serving"],
        "group_is_own": True,
        "job": JOB["RAY_JOB_ID"],
        "preloaded": None,
        "only_here": "yes",
        "folder": str(worker.parent),
    }
    assert output == "to standard output\n"
    again, _ = ask(worker)
    assert (again["parent"], again["only_here"]) == (servers.process_ids["serving"], None)


def test_an_actor_names_its_server_by_its_runtime_environment(
    worker: Path, servers: ForkServers
) -> None:
    wait_for(worker.parent / "torch")
    set_up = worker.parent / stand_in.SET_UP
    context = json.dumps({"env_vars": {PRELOADED_VARIABLE: "torch"}})
    command = [sys.executable, "-I", "-S", stand_in.__file__, sys.executable, str(set_up)]
    seen = worker.parent / "seen.json"
    subprocess.run(
        [*command, str(worker), str(seen), f"--serialized-runtime-env-context={context}"],
        env={**os.environ, FOLDER_VARIABLE: str(worker.parent), **JOB},
        timeout=LIMIT_S,
        check=True,
    )
    wait_for(seen)
    found = json.loads(seen.read_text())
    assert (found["parent"], found["preloaded"]) == (servers.process_ids["torch"], "torch")
    assert not found["has_early"]
    assert found["arguments"] == [str(seen)]


@pytest.mark.parametrize(
    "other",
    [{"RAY_JOB_ID": "02000000"}, {"RAY_RAYLET_PID": "78"}, {"RAY_JOB_ID": "ffffffff"}],
)
def test_a_worker_of_another_job_is_a_python_of_its_own(
    worker: Path, servers: ForkServers, other: dict[str, str]
) -> None:
    wait_for(worker.parent / "serving")
    ask(worker)
    seen, _ = ask(worker, environment=other)
    assert seen["parent"] == os.getpid()
    assert not seen["has_early"]


def test_imports_can_be_asked_for_before_the_first_worker(
    worker: Path, servers: ForkServers
) -> None:
    wait_for(worker.parent / "serving")
    servers.import_late(JOB | {"RAY_JOB_ID": "02000000"})
    seen, _ = ask(worker, environment={"RAY_JOB_ID": "02000000"})
    assert (seen["parent"], seen["has_late"]) == (servers.process_ids["serving"], True)
    seen, _ = ask(worker)
    assert seen["parent"] == os.getpid()


def test_without_a_server_it_is_a_python_of_its_own(worker: Path) -> None:
    seen, _ = ask(worker)
    assert seen["parent"] == os.getpid()
    assert not seen["has_early"]


def test_what_is_no_request_harms_nobody(worker: Path, servers: ForkServers) -> None:
    wait_for(worker.parent / "serving")
    for sent in (b"", b"no length", b"\xff\xff\xff\xff{}"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(worker.parent / "serving"))
            connection.sendall(sent)
    seen, _ = ask(worker)
    assert seen["parent"] == servers.process_ids["serving"]


@pytest.mark.parametrize(
    ("early", "late", "why"),
    [
        (
            "threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
            "wave",
            "threads run",
        ),
        ("wave", "ray; ray.UniqueID.from_random()", "random ids"),
    ],
    ids=["threads", "random ids"],
)
def test_a_server_that_could_harm_its_forks_ends_instead(
    worker: Path, early: str, late: str, why: str
) -> None:
    for name, code in (("early", early), ("late", late)):
        (worker.parent / f"{name}_module.py").write_text(f"import {code}\n")
    command = [sys.executable, "-m", "serving.fork_server.server", str(worker.parent / "serving")]
    server = subprocess.Popen(
        [*command, "--early", "early_module", "--late", "late_module"],
        env={**os.environ, "PYTHONPATH": f"{worker.parent}:{os.getcwd()}"},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(worker.parent / "serving")
        seen, _ = ask(worker)
        assert seen["parent"] == os.getpid()
        assert why in server.communicate(timeout=LIMIT_S)[1]
        assert server.returncode != 0
    finally:
        server.kill()
        server.communicate()


def test_a_server_ends_with_whoever_started_it(worker: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; "
        "from serving.fork_server.starting import ForkServers; "
        f"servers = ForkServers(Path({str(worker.parent)!r}), {{'serving': []}}, []); "
        "servers.start(); print(servers.process_ids['serving'], flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    server = int(starter.stdout.readline())
    wait_for(worker.parent / "serving")
    starter.send_signal(signal.SIGKILL)
    starter.communicate()
    deadline = time.monotonic() + LIMIT_S
    while is_running(server):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_only_workers_are_started_otherwise(tmp_path: Path) -> None:
    python = sys.executable
    with ForkServers(tmp_path, {}, []).starting_workers():
        assert os.environ[FOLDER_VARIABLE] == str(tmp_path)
        code = "import sys; print(sys.executable)"
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert said.stdout.strip() == python
    assert sys.executable == python
    assert FOLDER_VARIABLE not in os.environ
