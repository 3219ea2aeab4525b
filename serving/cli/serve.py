"""``quantserve serve``: run the service in the foreground until Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer
from rich.markup import escape

from serving.app.plan import Plan, longest_request_s
from serving.app.preloading import start_fork_servers
from serving.app.proxy_limits import most_under_way
from serving.app.ray_environment import join_ray_environment, prepare_ray_environment
from serving.artifacts import ArtifactStore
from serving.cli.console import clean_errors, err, out
from serving.cli.planning import load_plan
from serving.cli.preparing import event_line, prepare_shown
from serving.cli.starting import READY, Name, StartView, is_settled, read_progress
from serving.config import ServerConfig
from serving.errors import ConfigError

if TYPE_CHECKING:  # importing Ray reads the environment, which has to be prepared before
    from serving.app.joined_service import JoinedService
    from serving.app.service import Service

POLL_S = 1.0
"""Each look has the gateway ask the controller, which has a start to manage."""


def serve(
    config: Annotated[Path | None, typer.Argument(help="YAML file; the demo without it.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind.")] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Head of a Ray cluster that runs, HOST:PORT or auto; serve on it."),
    ] = None,
) -> None:
    """Serve CONFIG in the foreground. Ctrl-C and SIGTERM finish requests in flight, then stop."""
    started = time.monotonic()
    with clean_errors():
        given = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
        command_line = {"server": given} if given else {}
        if address is None:
            _serve_here(config, command_line, started)
        else:
            _serve_on_cluster(address, config, command_line, started)


def _serve_here(config: Path | None, command_line: Mapping[str, Any], started: float) -> None:
    """Serve with a Ray of the service's own."""
    settings, plan = load_plan(config, command_line)
    plan.require_fit()
    stop = threading.Event()
    _stop_on_signals(stop)
    _prepare(plan, ArtifactStore(Path(settings.artifacts.folder)), stop)
    if stop.is_set():
        out.print("stopped")
        return
    run_directory = prepare_ray_environment(
        settings.server.host,
        most_under_way(plan, settings.server),
        longest_request_s(settings.models, settings.server),
    )
    fork_servers = start_fork_servers(plan, run_directory)
    # Importing Ray reads the environment that was just prepared.
    from serving.app.service import Service

    service = Service(settings, plan, run_directory, fork_servers)
    _run(service, service.start, plan, settings.server, stop, started)


def _serve_on_cluster(
    address: str, config: Path | None, command_line: Mapping[str, Any], started: float
) -> None:
    """Serve on a Ray that runs; its nodes prepare what they lack."""
    join_ray_environment()
    # Importing Ray reads the environment that was just prepared.
    from serving.app.joined_service import JoinedService

    service = JoinedService(address)
    try:
        settings, plan = load_plan(config, command_line, service.has_cuda)
    except BaseException:
        service.close()
        raise
    out.print(f"joined a Ray cluster of {service.num_nodes} nodes at {address}", soft_wrap=True)
    stop = threading.Event()
    start = partial(service.start, settings, plan)
    _run(service, start, plan, settings.server, stop, started)


def _run(
    service: Service | JoinedService,
    start: Callable[[Callable[[str], None]], None],
    plan: Plan,
    server: ServerConfig,
    stop: threading.Event,
    started: float,
) -> None:
    """Start a service, show how it starts, wait until it is to stop, and stop it."""
    names = [(planned.model.name, planned.variant.name) for planned in plan.variants]
    try:
        out.print(f"starting {len(names)} variants; Ctrl-C stops")
        with StartView(names, started) as view:
            start(view.show_stage)
            # Ray has put handlers of its own in place, which print a stack trace.
            _stop_on_signals(stop)
            num_ready = _show_until_settled(view, names, server, service, stop)
        if num_ready is not None:
            _print_ready(num_ready, len(names), time.monotonic() - started, server)
            out.print(f"logs: {service.log_directory}", soft_wrap=True)
            _warn_of_lost_evidence(server)
        while _goes_on(service, stop):
            pass
    finally:
        out.print("stopping; requests in flight may finish")
        service.stop()
        out.print("stopped")


def _prepare(plan: Plan, store: ArtifactStore, stop: threading.Event) -> None:
    """Make the artifacts that are missing; a replica without its own says why.

    Raises:
        ConfigError: None could be made.
    """
    events = prepare_shown(plan.variants, store, stop)
    failed = [event for event in events if event.artifact is None]
    for event in events:
        if event.state != "present":
            (err if event in failed else out).print(event_line(event), soft_wrap=True)
    if failed and len(failed) == len(events):
        raise ConfigError("no variant could be prepared")


def _stop_on_signals(stop: threading.Event) -> None:
    def request_stop(signum: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, request_stop)
    signal.signal(signal.SIGTERM, request_stop)


def _goes_on(service: Service | JoinedService, stop: threading.Event) -> bool:
    """Wait a moment; whether the service is not to stop yet.

    Raises:
        ServiceEnded: Nobody has asked it to, but it has lost what it needs.
    """
    if stop.wait(POLL_S):
        return False
    service.require_ray()
    return True


def _show_until_settled(
    view: StartView,
    names: Sequence[Name],
    server: ServerConfig,
    service: Service | JoinedService,
    stop: threading.Event,
) -> int | None:
    """Show each variant's progress, as the service itself tells it.

    Returns:
        How many are ready once every variant is or has failed; None if ``stop`` came before.

    Raises:
        ServiceEnded: What it needs ended before.
    """
    with httpx.Client(base_url=local_url(server), timeout=5) as http:
        while _goes_on(service, stop):
            answer = _ask_ready(http)
            if answer is None:
                continue
            progress = read_progress(answer, names)
            view.show(progress)
            if is_settled(progress):
                return sum(one == READY for one in progress.values())
    return None


def _print_ready(num_ready: int, num_variants: int, seconds: float, server: ServerConfig) -> None:
    url = local_url(server)
    out.print(
        f"Server: ready after {seconds:.1f} s; {num_ready} of {num_variants} variants on {url} "
        f"(docs: {url}/docs, metrics: {url}/metrics)",
        soft_wrap=True,
    )
    out.print(f"console: {url}/", soft_wrap=True)


def _warn_of_lost_evidence(server: ServerConfig) -> None:
    """Say why what becomes known of quality will not outlive the service, if it will not."""
    key = server.api_key
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    try:
        answer = httpx.get(f"{local_url(server)}/v1/quality", headers=headers, timeout=5)
        models = answer.raise_for_status().json()["data"]
    except httpx.HTTPError:  # quality is told later, by ``quantserve quality``
        return
    for reason in {model["not_kept"] for model in models} - {""}:
        err.print(f"[yellow]evidence is not kept:[/] {escape(reason)}", soft_wrap=True)


def local_url(server: ServerConfig) -> str:
    """Address under which this machine reaches the service."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}"


def _ask_ready(http: httpx.Client) -> dict[str, object] | None:
    """What ``/v2/health/ready`` says; None while the gateway does not answer."""
    try:
        answer = http.get("/v2/health/ready").json()
    except (httpx.HTTPError, ValueError):
        return None
    return answer if isinstance(answer, dict) and "ready" in answer else None
