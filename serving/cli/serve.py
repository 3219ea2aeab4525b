"""``quantserve serve``: run the service in the foreground until Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import httpx
import typer

from serving.app.plan import Plan, make_plan
from serving.app.ray_environment import prepare_ray_environment
from serving.artifacts import ArtifactStore
from serving.cli.console import clean_errors, config_or_demo, err, out
from serving.cli.preparing import event_line, prepare_shown
from serving.config import ServerConfig
from serving.errors import ConfigError
from serving.settings import load_config

POLL_S = 0.5


def serve(
    config: Annotated[Path | None, typer.Argument(help="YAML file; the demo without it.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind.")] = None,
) -> None:
    """Serve CONFIG in the foreground. Ctrl-C and SIGTERM finish requests in flight, then stop."""
    started = time.monotonic()
    with clean_errors():
        given = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
        settings = load_config(config_or_demo(config), {"server": given} if given else {})
        plan = make_plan(settings)
        plan.require_fit()
        stop = threading.Event()
        _stop_on_signals(stop)
        _prepare(plan, ArtifactStore(Path(settings.artifacts.folder)), stop)
        if stop.is_set():
            out.print("stopped")
            return
        run_directory = prepare_ray_environment(settings.server.host)
        # Importing Ray reads the environment that was just prepared.
        from serving.app.service import Service

        service = Service(settings, plan, run_directory)
        try:
            out.print(f"starting {len(plan.variants)} variants; Ctrl-C stops")
            service.start()
            # Ray has put handlers of its own in place, which print a stack trace.
            _stop_on_signals(stop)
            if _report_until_settled(plan, settings.server, started, stop):
                out.print(f"logs: {service.log_directory}", soft_wrap=True)
            stop.wait()
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


def _report_until_settled(
    plan: Plan, server: ServerConfig, started: float, stop: threading.Event
) -> bool:
    """Print each variant's progress, as the service itself tells it.

    Returns:
        Whether every variant is ready or has failed; False if ``stop`` came before.
    """
    url = local_url(server)
    names = [f"{planned.model.name}:{planned.variant.name}" for planned in plan.variants]
    shown: dict[str, str] = {}
    while not stop.wait(POLL_S):
        missing = _not_ready(url)
        if missing is None:
            continue
        for name in names:
            reason = missing[name]["reason"] if name in missing else "ready"
            if shown.get(name) != reason:
                shown[name] = reason
                failed = name in missing and missing[name]["failed"]
                console = err if failed else out
                console.print(
                    f"{time.monotonic() - started:6.1f} s  {name}: {reason}", markup=False
                )
        if all(entry["failed"] for entry in missing.values()):
            out.print(
                f"{time.monotonic() - started:6.1f} s  {len(names) - len(missing)} of "
                f"{len(names)} variants ready on {url} (docs: {url}/docs, metrics: {url}/metrics)",
                soft_wrap=True,
            )
            return True
    return False


def local_url(server: ServerConfig) -> str:
    """Address under which this machine reaches the service."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}"


def _not_ready(url: str) -> dict[str, dict[str, Any]] | None:
    """What is missing, by ``model:variant``; None while the gateway does not answer."""
    try:
        answer = httpx.get(f"{url}/v2/health/ready", timeout=5).json()
    except (httpx.HTTPError, ValueError):
        return None
    if not isinstance(answer, dict) or "ready" not in answer:
        return None
    return {f"{entry['model']}:{entry['variant']}": entry for entry in answer.get("not_ready", [])}
