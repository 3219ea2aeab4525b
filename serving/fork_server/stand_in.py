"""What Ray starts in place of Python: has a fork server start the worker, or is Python itself.

Run as ``python -I -S stand_in.py PYTHON [arguments of Python]``. It imports little, as it runs for
every worker; everything that is not the start of a worker goes to ``PYTHON`` unchanged.
"""

import json
import os
import signal
import socket
import struct
import sys

FOLDER_VARIABLE = "QUANTSERVE_FORK_SERVERS"
"""Folder of the servers' sockets, each named as what it has imported."""

PRELOADED_VARIABLE = "QUANTSERVE_PRELOADED"
"""In the runtime environment of an actor: the server that its worker is forked from."""

DEFAULT_SERVER = "serving"

LENGTH = struct.Struct("!I")

SET_UP, WORKER = "setup_worker.py", "default_worker.py"
"""Ray's scripts: one that prepares an actor's runtime environment and then executes the other."""

_CONTEXT_FLAG = "--serialized-runtime-env-context="


def wanted_server(arguments: list[str]) -> str | None:
    """Name the server that can start what Ray asks for; None if only Python itself can.

    Args:
        arguments: Those of Python: ``SET_UP`` where there is a runtime environment, ``WORKER``,
            flags.
    """
    scripts = [os.path.basename(argument) for argument in arguments[:2]]
    if WORKER not in (scripts if scripts[:1] == [SET_UP] else scripts[:1]):
        return None
    given = [a.removeprefix(_CONTEXT_FLAG) for a in arguments if a.startswith(_CONTEXT_FLAG)]
    context = json.loads(given[-1]) if given else {}
    variables = context.get("env_vars") or {}
    others = {key: value for key, value in context.items() if value and key != "env_vars"}
    # Ray writes down the interpreter even where nobody chose one.
    others.pop("py_executable", None)
    if others or variables.keys() - {PRELOADED_VARIABLE}:
        return None
    return str(variables.get(PRELOADED_VARIABLE, DEFAULT_SERVER))


def send_request(
    connection: socket.socket, arguments: list[str], environment: dict[str, str]
) -> None:
    """Ask a server for a worker with this process's files; without arguments, for its imports.

    Args:
        connection: To the server.
        arguments: As of ``wanted_server``.
        environment: All of the worker's variables.

    Raises:
        OSError: The server has ended.
    """
    request = json.dumps(
        {
            "arguments": arguments,
            "environment": environment,
            "folder": os.getcwd(),
            "blocked": [int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        }
    ).encode()
    socket.send_fds(connection, [LENGTH.pack(len(request))], [0, 1, 2])
    connection.sendall(request)


def ask_for_fork(path: str, arguments: list[str]) -> bool:
    """Ask the server at ``path`` for a worker; returns whether it runs."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            send_request(connection, arguments, dict(os.environ))
            return connection.recv(1) == b"+"
    except OSError:
        return False


def main() -> None:
    """Hand the start over, or replace this process by Python."""
    python, *arguments = sys.argv[1:]
    folder = os.environ.get(FOLDER_VARIABLE)
    server = wanted_server(arguments)
    if folder and server and ask_for_fork(os.path.join(folder, server), arguments):
        return
    os.execv(python, [python, *arguments])  # noqa: S606


if __name__ == "__main__":
    main()
