"""Imports modules once, then forks a worker of Ray's for whoever asks.

Run as ``python -m serving.fork_server.server SOCKET --early MODULE … --late MODULE …``. It ends
when its standard input does, which is when whoever started it has ended. Workers that it forked go
on.

Ray's own module reads the environment when it is imported, and part of that, the job and the
process that looks after the node, is known only when Ray has started. So what needs Ray is imported
with the environment of the first request, and only workers with the same are forked.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import logging
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.fork_server import random_ids
from serving.fork_server.stand_in import LENGTH, SET_UP

logger = logging.getLogger("quantserve.fork_server")

REQUEST_TIMEOUT_S = 5.0
"""A stand-in writes its request at once; one that was stopped must not hold the others up."""

BELONGING = frozenset({"RAY_JOB_ID", "RAY_RAYLET_PID"})
"""What Ray reads when it is imported and knows only at the start of a worker."""

NO_JOB = "ffffffff"
"""Of workers that Ray starts before anybody wants them; they start as without a fork server."""

OOM_SCORE = 1000
"""As Ray sets it for its workers: when memory runs out, the kernel ends one of them before Ray."""


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """What a worker starts with.

    Attributes:
        arguments: As of ``stand_in.wanted_server``; empty if nothing is to be forked yet.
        environment: All of its environment variables.
        folder: Where it runs.
        blocked: Numbers of the signals that it does not receive.
    """

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    blocked: list[int]


def main() -> None:
    """Serve until standard input ends; in a fork, be the worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    parser.add_argument("--early", nargs="*", default=[])
    parser.add_argument("--late", nargs="*", default=[])
    arguments = parser.parse_args()
    with socket.socket(socket.AF_UNIX) as listener:
        # Before importing: whoever asks meanwhile waits, instead of importing the same once more.
        listener.bind(arguments.socket)
        listener.listen(128)
        import_without_threads(arguments.early)
        start = serve(listener, arguments.late)
    if start is not None:
        run_worker(start)


def import_without_threads(modules: Sequence[str]) -> None:
    """Import; end the process if that has started threads, so that nothing is forked from it.

    A lock that another thread holds at a fork stays locked in the child for ever.
    """
    for module in modules:
        importlib.import_module(module)
    if (number := num_threads()) > 1:
        raise SystemExit(f"no worker can be forked: {number} threads run after importing {modules}")
    gc.collect()
    # The collector would write to the objects that all workers share.
    gc.freeze()


def import_with_ray(modules: Sequence[str]) -> None:
    """Likewise for what imports Ray; end the process if forks would use the same random ids."""
    with random_ids.unseeded():
        import_without_threads(modules)
    if random_ids.forks_draw_alike():
        raise SystemExit(
            f"no worker can be forked: importing {modules} has seeded Ray's random ids"
        )


def serve(listener: socket.socket, late: Sequence[str]) -> WorkerStart | None:
    """Fork for each connection that asks for a worker in the environment of the first.

    Args:
        listener: Where they connect.
        late: Modules that are imported in the environment of the first.

    Returns:
        In a fork, what it is to run; in the server, None when standard input has ended.
    """
    belonging: dict[str, str] | None = None
    while True:
        readable, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in readable:
            return None
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(REQUEST_TIMEOUT_S)
            try:
                start, files = receive(connection)
            except (OSError, EOFError, ValueError, TypeError) as error:
                logger.warning("a request for a worker could not be read: %s", error)
                continue
            has_job = start.environment.get("RAY_JOB_ID", NO_JOB) != NO_JOB
            if belonging is None and has_job and start.environment.keys() >= BELONGING:
                belonging = {name: start.environment[name] for name in BELONGING}
                os.environ.update(start.environment)
                import_with_ray(late)
                # The kernel then forgets workers that ended, which Ray watches by itself.
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            belongs = belonging is not None and belonging.items() <= start.environment.items()
            can_fork = belongs and bool(start.arguments)
            if can_fork and os.fork() == 0:
                for number, file in enumerate(files):
                    os.dup2(file, number)
                    os.close(file)
                return start
            for file in files:
                os.close(file)
            with contextlib.suppress(OSError):  # it was ended meanwhile
                connection.sendall(b"+" if can_fork else b"-")


def receive(connection: socket.socket) -> tuple[WorkerStart, list[int]]:
    """Read what ``stand_in.ask_for_fork`` sends.

    Returns:
        The request, and descriptors of standard input, output and error.

    Raises:
        EOFError: The other side ended before the end.
        OSError: It cannot be read, or not in time.
    """
    head, files, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
    if len(head) < LENGTH.size or len(files) != 3:
        raise EOFError("the connection was closed")
    left = LENGTH.unpack(head)[0]
    parts = []
    while left:
        part = connection.recv(min(left, 65_536))
        if not part:
            raise EOFError("the connection was closed")
        parts.append(part)
        left -= len(part)
    return WorkerStart(**json.loads(b"".join(parts))), files


def run_worker(start: WorkerStart) -> None:
    """Become the worker: what ``setup_worker.py`` and a new Python process would have done."""
    # Ray ends a worker with the process group that it leads.
    os.setpgid(0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, start.blocked)
    Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    os.chdir(start.folder)
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--serialized-runtime-env-context", default="{}")
    parser.add_argument("--language")
    is_set_up = os.path.basename(start.arguments[0]) == SET_UP
    set_up, arguments = parser.parse_known_args(start.arguments[is_set_up:])
    variables = json.loads(set_up.serialized_runtime_env_context).get("env_vars") or {}
    os.environ.clear()
    os.environ.update(start.environment | variables)
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


def num_threads() -> int:
    """Threads of this process, those of C libraries included."""
    return len(os.listdir("/proc/self/task"))


if __name__ == "__main__":
    main()
