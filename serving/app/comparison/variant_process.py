"""A variant in a process of its own, which measures it; without Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from serving.app.comparison.measuring import OpenedVariant, Opening, open_variant
from serving.app.ray_environment import THREADS
from serving.errors import ConfigError, QuantserveError

STANDARD_ERROR = 2
CLOSE_TIMEOUT_S = 20

Found = TypeVar("Found")


class VariantProcess:
    """A variant that was opened in a process of its own, as lean as a replica's.

    Args:
        opening: What is opened.

    Raises:
        ConfigError: This machine cannot open it.
    """

    def __init__(self, opening: Opening) -> None:
        self._name = f"{opening.model.name}:{opening.variant.name}"
        self._connection, theirs = Pipe()
        self._process = subprocess.Popen(  # noqa: S603 (this module)
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=STANDARD_ERROR,  # what libraries print is no answer
            env={**os.environ, **THREADS},
        )
        theirs.close()
        try:
            self._exchange(opening)
        except BaseException:
            self.close()
            raise

    def call(self, function: Callable[..., Found], *arguments: Any) -> Found:
        """Have the process call a function with the opened variant and more arguments.

        Args:
            function: One of a module; what it returns is pickled.
            arguments: Likewise.

        Raises:
            QuantserveError: What the function raised.
            ConfigError: The process ended.
        """
        found: Found = self._exchange((function, arguments))
        return found

    def _exchange(self, message: Any) -> Any:
        try:
            self._connection.send(message)
            answer = self._connection.recv()
        except (EOFError, OSError):
            status = self._process.wait()
            if status == -signal.SIGKILL:
                raise ConfigError(
                    f"{self._name}: the process was killed; is the memory enough?"
                ) from None
            raise ConfigError(f"{self._name}: the process ended with status {status}") from None
        if isinstance(answer, QuantserveError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process; one that does not end by itself is killed."""
        self._connection.close()
        try:
            self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(connection: Connection) -> None:
    """Open what is sent first, then call what is sent, until the other end is closed."""
    opened: OpenedVariant | None = None
    while True:
        try:
            message = connection.recv()
        except EOFError:
            break
        try:
            if opened is None:
                opened, answer = open_variant(message), None
            else:
                function, arguments = message
                answer = function(opened, *arguments)
        except QuantserveError as error:
            answer = error
        connection.send(answer)
    if opened is not None:
        opened.close()


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
