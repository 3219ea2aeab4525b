"""Starts fork servers beside Ray, and has Ray start its workers through them."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from serving.fork_server import stand_in

SERVER = (sys.executable, "-m", "serving.fork_server.server")


class ForkServers:
    """The fork servers of one service.

    Args:
        folder: A private folder, for their sockets.
        early: What each of them imports at once, by its name; none of it may import Ray.
        late: What each imports with the environment of its first worker.
    """

    def __init__(
        self, folder: Path, early: Mapping[str, Sequence[str]], late: Sequence[str]
    ) -> None:
        self._folder = folder
        self._early = early
        self._late = late
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start them; they import while Ray starts, and whoever asks them meanwhile waits."""
        for name, modules in self._early.items():
            imported = ["--early", *modules, "--late", *self._late]
            self._processes.append(
                subprocess.Popen(  # noqa: S603
                    [*SERVER, str(self._folder / name), *imported],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    # Ctrl-C in a terminal is meant for the service, which ends workers in order.
                    start_new_session=True,
                )
            )

    def import_late(self, known: Mapping[str, str]) -> None:
        """Have all of them import what needs Ray, before the first worker is wanted.

        Args:
            known: What Ray adds to the environment of every worker.
        """
        environment = {**os.environ, stand_in.FOLDER_VARIABLE: str(self._folder), **known}
        for name in self._early:
            # One that has ended is told by every start that it does not answer.
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self._folder / name))
                stand_in.send_request(connection, [], environment)

    @contextlib.contextmanager
    def starting_workers(self) -> Iterator[None]:
        """Start Ray inside: its workers then come from these servers.

        Ray writes ``sys.executable`` into the command by which it starts workers, and has no
        setting for it. Its other processes, which it starts with the same, are Python's as before.
        """
        python = sys.executable
        sys.executable = str(self._write_script())
        os.environ[stand_in.FOLDER_VARIABLE] = str(self._folder)
        try:
            yield
        finally:
            sys.executable = python
            del os.environ[stand_in.FOLDER_VARIABLE]

    @property
    def process_ids(self) -> dict[str, int]:
        """Process of each server, by its name."""
        return {name: one.pid for name, one in zip(self._early, self._processes, strict=True)}

    def _write_script(self) -> Path:
        command = [sys.executable, "-I", "-S", str(stand_in.__file__), sys.executable]
        script = self._folder / "python"
        script.write_text(
            "#!/bin/sh\n"
            'case "$1" in\n'
            f'    */{stand_in.SET_UP} | */{stand_in.WORKER}) exec {shlex.join(command)} "$@" ;;\n'
            "esac\n"
            f'exec {shlex.quote(sys.executable)} "$@"\n'
        )
        script.chmod(0o700)
        return script

    def close(self) -> None:
        """End the servers; workers that they forked go on."""
        for process in self._processes:
            process.terminate()
            process.communicate()
