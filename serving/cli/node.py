"""``quantserve node``: run a node of a Ray cluster in the foreground, for ``serve --address``."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from types import FrameType
from typing import Annotated

import typer

from serving.app.haproxy_processes import end_haproxy
from serving.app.ray_environment import prepare_node_environment


def node(
    address: Annotated[
        str | None,
        typer.Option(help="Head of the cluster to join, HOST:PORT; without it this is the head."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address that HAProxy's metrics and statistics bind.")
    ] = "127.0.0.1",
    ray_options: Annotated[
        list[str] | None, typer.Argument(help="After --: what `ray start` gets besides.")
    ] = None,
) -> None:
    """Run a node of a Ray cluster until Ctrl-C or SIGTERM, as the service needs it.

    It is `ray start --block` with the settings of deploy/ray.env, and with an HAProxy whose own
    answers have the service's shape. All nodes need the same token; see `ray get-auth-token`.
    """
    run_directory = prepare_node_environment(host)
    role = [f"--address={address}"] if address else ["--head", "--include-dashboard=false"]
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *role]
    process = subprocess.Popen([*ray, *(ray_options or [])])  # noqa: S603

    def pass_on(signum: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGTERM)

    # Ctrl-C in a terminal reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, pass_on)
    try:
        status = process.wait()
    finally:
        end_haproxy(run_directory)
        shutil.rmtree(run_directory, ignore_errors=True)
    raise typer.Exit(0 if status in (0, -signal.SIGTERM, -signal.SIGINT) else 1)
