"""Renders chat templates in a process of its own, bounded in time, memory and output.

A template is a program of whoever made the checkpoint. The sandbox keeps it from the machine, but
not from ``range(10**5)`` within ``range(10**5)``, nor from a text that doubles forty times; and a
thread that computes cannot be stopped. A process can: the kernel ends it after its seconds of
processor time, and gives it no more memory than its limit. The next chat starts another.

The process is ``chat_template.py``, run as a program: the package around it would bring NumPy.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import TemplateError

from serving.tasks import chat_template
from serving.tasks.chat_template import CPU_S, read_message, write_message

MAX_TEMPLATE_CHARACTERS = 2**20
"""Fifty times the longest in use."""


def render_bounded(
    template: str,
    variables: Mapping[str, str],
    messages: Sequence[Mapping[str, Any]],
    asks_for_answer: bool = True,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Render messages with a template; arguments are those of ``chat_template.render``.

    It may wait for some seconds, so no event loop should.

    Raises:
        TemplateError: The template refuses the messages or fails, or takes more time, memory or
            room than it may.
    """
    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise TemplateError(
            f"it has {len(template):,} characters; at most {MAX_TEMPLATE_CHARACTERS:,} are run"
        )
    asked = [template, dict(variables), list(messages), asks_for_answer, list(tools)]
    return _process_of(os.getpid()).render(json.dumps(asked).encode())


@cache
def _process_of(_process_id: int) -> _Process:
    # A fork has no use for the pipes of the process that it was forked from.
    return _Process()


class _Process:
    """The process, started when it is first needed and again after it was ended."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None

    def render(self, asked: bytes) -> str:
        with self._one_at_a_time:
            if self._running is not None and self._running.poll() is not None:
                _why_ended(self._running)
                self._running = None
            if self._running is None:
                self._running = _start()
            process = self._running
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                write_message(process.stdin, asked)
                answer = read_message(process.stdout)
            except BrokenPipeError:
                answer = None
            if answer is None:
                self._running = None
                raise TemplateError(_why_ended(process))
        text, refusal = json.loads(answer)
        if refusal is not None:
            raise TemplateError(refusal)
        return str(text)


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 (ours)
        [sys.executable, "-P", chat_template.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Its cores are those that wait for it meanwhile.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _why_ended(process: subprocess.Popen[bytes]) -> str:
    """Leave a process that has ended behind, and say why it did."""
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # what was not sent yet is of no use
            pipe.close()
    status = process.wait()
    if status == -signal.SIGXCPU:
        return f"it takes more than {CPU_S} s of processor time"
    return f"the process that renders it ended with status {status}"
