"""Starts and stops the whole service on this machine: Ray, HAProxy, gateway and replicas.

Import only after ``prepare_ray_environment``.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import logging
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import serve
from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray.exceptions import RayActorError
from ray.serve import RunTarget
from ray.serve.config import HTTPOptions
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from serving.app.applications import (
    GATEWAY,
    NO_ACCESS_LOG,
    build_applications,
    proxy_timeout_s,
)
from serving.app.plan import Plan, longest_request_s
from serving.config import Config, ServerConfig
from serving.errors import ConfigError, StartError
from serving.fork_server.starting import ForkServers
from serving.gateway.serve_details import serve_applications

OBJECT_STORE_BYTES = 128 * 1024**2
"""Requests and answers travel by gRPC; Ray's object store is hardly used."""

HAPROXY_STOP_S = 5.0
IDLE_POLL_S = 0.1
IDLE_ANSWER_S = 2.0

GATEWAY_START_S = 10.0
GATEWAY_POLL_S = 0.2


class Service:
    """The running service.

    Args:
        config: What to serve.
        plan: The same, with sources found.
        run_directory: What ``prepare_ray_environment`` returned.
        fork_servers: Where workers come from; closed when the service stops.
    """

    def __init__(
        self, config: Config, plan: Plan, run_directory: Path, fork_servers: ForkServers
    ) -> None:
        self._config = config
        self._plan = plan
        self._run_directory = run_directory
        self._longest_request_s = longest_request_s(config.models, config.server)
        self._fork_servers = fork_servers

    def start(self, show_stage: Callable[[str], None] = lambda stage: None) -> None:
        """Start the gateway, then everything else, and return; the gateway tells how far it is.

        Args:
            show_stage: Told what happens before the gateway can tell.

        Raises:
            ConfigError: The port is taken.
            StartError: Ray, Serve's proxy or the gateway did not come up.
        """
        require_free_port(self._config.server)
        show_stage("starting Ray")
        try:
            self._start_ray()
        except Exception as error:  # Ray has no class of its own for most of what can happen
            raise StartError(
                f"Ray did not start: {error} Is the machine busy, or out of memory? Try again; "
                f"Ray's logs are in {_newest_session()}"
            ) from error
        show_stage("starting the gateway")
        gateway, *others = build_applications(self._config, self._plan)
        _deploy([gateway])
        _wait_until_running(GATEWAY.name)
        _deploy(others)

    def _start_ray(self) -> None:
        with self._fork_servers.starting_workers():
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
            )
        self._fork_servers.import_late(_known_to_workers())
        end_unused_processes()
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        server = self._config.server
        serve.start(
            http_options=HTTPOptions(
                host=server.host,
                port=server.port,
                request_timeout_s=proxy_timeout_s(self._config),
            ),
            logging_config=NO_ACCESS_LOG,
        )

    @property
    def log_directory(self) -> Path:
        """Where Ray writes the logs of every process."""
        return Path(ray._private.worker._global_node.get_logs_dir_path()) / "serve"  # type: ignore[attr-defined]

    def stop(self) -> None:
        """Let requests in flight finish, then end everything that ``start`` started."""
        try:
            if ray.is_initialized():
                # HAProxy then takes no new connection, and closes each one with its next answer.
                signal_haproxy(self._run_directory, signal.SIGUSR1)
                # Ray prints the controller's own, intended end as a failed task.
                with contextlib.redirect_stdout(io.StringIO()):
                    asyncio.run(self._finish_and_shut_down())
        finally:
            ray.shutdown()
            self._fork_servers.close()
            end_haproxy(self._run_directory)
            shutil.rmtree(self._run_directory, ignore_errors=True)

    async def _finish_and_shut_down(self) -> None:
        # One event loop for both: Serve's handles live in the loop that made them.
        try:
            await self._wait_until_idle()
        finally:
            await serve.shutdown_async()

    async def _wait_until_idle(self) -> None:
        """Wait until no process has an unanswered request, at most as long as one may take."""
        deadline = time.monotonic() + self._longest_request_s
        handles = [
            serve.get_app_handle(name)
            for name, application in serve.status().applications.items()
            if application.status == ApplicationStatus.RUNNING
        ]
        while time.monotonic() < deadline:
            if not any([await _is_busy(handle) for handle in handles]):
                return
            await asyncio.sleep(IDLE_POLL_S)


def _known_to_workers() -> dict[str, str]:
    """What Ray adds to the environment of every worker of this job on this node."""
    node: Any = ray._private.worker._global_node
    (raylet,) = node.all_processes[PROCESS_TYPE_RAYLET]
    return {
        "RAY_JOB_ID": ray.get_runtime_context().get_job_id(),
        "RAY_RAYLET_PID": str(raylet.process.pid),
    }


def end_unused_processes() -> None:
    """End what Ray starts beside its core and nobody asked for; it does not start them again.

    The log monitor reads every log file ten times a second for a driver that shows none of them,
    the autoscaler's monitor watches for nodes that one machine has not, and the dashboard has no
    page here.
    """
    node: Any = ray._private.worker._global_node
    for end in (node.kill_log_monitor, node.kill_monitor, node.kill_dashboard):
        end(check_alive=False)


def _deploy(targets: list[RunTarget]) -> None:
    serve.run_many(
        targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
    )


def _wait_until_running(application: str) -> None:
    """Give one application the machine to start on; not for ever, as it may take long.

    Raises:
        StartError: It cannot run.
    """
    deadline = time.monotonic() + GATEWAY_START_S
    while time.monotonic() < deadline:
        details = serve_applications().get(application)
        if details is not None and details["status"] == ApplicationStatus.RUNNING:
            return
        if details is not None and details["status"] == ApplicationStatus.DEPLOY_FAILED:
            # The last line of a traceback says what was wrong.
            reason = details["message"].strip().rpartition("\n")[2].strip()
            raise StartError(f"the {application} cannot start: {reason}")
        time.sleep(GATEWAY_POLL_S)


async def _is_busy(handle: DeploymentHandle[Any]) -> bool:
    """Whether any replica of an application has an unanswered request."""
    try:
        numbers = await handle.broadcast("in_flight").results_async(
            timeout_s=IDLE_ANSWER_S, return_exceptions=True
        )
    except TimeoutError:
        return True
    except (RayServeException, RayActorError):
        return False  # nobody is there to answer
    return any(isinstance(number, int) and number > 0 for number in numbers)


def _newest_session() -> Path:
    """Where Ray writes the logs of the session that began last."""
    return Path(tempfile.gettempdir(), "ray", "session_latest", "logs")


def require_free_port(server: ServerConfig) -> None:
    """Raise ``ConfigError`` if something listens on the configured address already."""
    with socket.socket(_family(server.host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host, server.port))
        except OSError as error:
            raise ConfigError(
                f"server.port: cannot listen on {server.host}:{server.port}: {error.strerror}"
            ) from None


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


def _family(host: str) -> socket.AddressFamily:
    try:
        return socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return socket.AF_INET
