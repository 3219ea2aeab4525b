"""The HAProxy processes of one service or node, which Ray starts and leaves running."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import psutil

HAPROXY_STOP_S = 5.0


def end_haproxy(run_directory: Path) -> None:
    """End the HAProxy processes of one service, which Ray leaves running, and no other."""
    ours = signal_haproxy(run_directory, signal.SIGTERM)
    _, alive = psutil.wait_procs(ours, timeout=HAPROXY_STOP_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def signal_haproxy(run_directory: Path, signum: signal.Signals) -> list[psutil.Process]:
    """Send a signal to the HAProxy processes of one service, and return them."""
    ours = [process for process in psutil.process_iter() if _belongs_to(process, run_directory)]
    for process in ours:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signum)
    return ours


def _belongs_to(process: psutil.Process, run_directory: Path) -> bool:
    try:
        arguments = process.cmdline()
    except psutil.Error:
        return False
    return any(argument.startswith(f"{run_directory}/") for argument in arguments) and (
        process.name() == "haproxy"
    )
