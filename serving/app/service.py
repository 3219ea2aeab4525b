"""Starts and stops the whole service on this machine: Ray, HAProxy, gateway and replicas.

Import only after ``prepare_ray_environment``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import serve
from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray.serve.config import HTTPOptions

from serving.app.applications import (
    NO_ACCESS_LOG,
    build_applications,
    machine_options,
    proxy_timeout_s,
)
from serving.app.deploying import deploy, shut_down
from serving.app.haproxy_processes import end_haproxy, signal_haproxy
from serving.app.plan import Plan, longest_request_s
from serving.config import Config, ServerConfig
from serving.errors import ConfigError, ServiceEnded, StartError
from serving.fork_server.starting import ForkServers

END_S = 5.0

OBJECT_STORE_BYTES = 128 * 1024**2
"""Requests and answers travel by gRPC; Ray's object store is hardly used."""


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
        deploy(build_applications(self._config, self._plan, machine_options), show_stage)

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

    def require_ray(self) -> None:
        """Raise if a process of Ray's core has ended, which Ray starts no second time.

        Raises:
            ServiceEnded: Which, and where its log is.
        """
        for kind, process in _node().dead_processes():
            raise ServiceEnded(
                f"Ray's {kind} has ended with status {process.returncode}, and the service cannot "
                "go on without it; start it again. Was the machine out of memory? Ray's logs are "
                f"in {self.log_directory.parent}"
            )

    @property
    def log_directory(self) -> Path:
        """Where Ray writes the logs of every process."""
        return Path(_node().get_logs_dir_path()) / "serve"

    def stop(self) -> None:
        """Let requests in flight finish, then end everything that ``start`` started.

        Nothing finishes any more where a process of Ray's core has ended.
        """
        is_whole = ray.is_initialized() and not _node().dead_processes()
        # Without its core Ray knows of them no more, and its agents wait for it for a minute.
        others = [] if is_whole else psutil.Process().children(recursive=True)
        try:
            if is_whole:
                # HAProxy then takes no new connection, and closes each one with its next answer.
                signal_haproxy(self._run_directory, signal.SIGUSR1)
                shut_down(self._longest_request_s)
        finally:
            ray.shutdown()
            self._fork_servers.close()
            end_haproxy(self._run_directory)
            _end(others)
            shutil.rmtree(self._run_directory, ignore_errors=True)


def _end(processes: Sequence[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=END_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _known_to_workers() -> dict[str, str]:
    """What Ray adds to the environment of every worker of this job on this node."""
    (raylet,) = _node().all_processes[PROCESS_TYPE_RAYLET]
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
    node = _node()
    for end in (node.kill_log_monitor, node.kill_monitor, node.kill_dashboard):
        end(check_alive=False)


def _node() -> Any:
    """What Ray keeps of the processes that it started for us; it has no public name."""
    return ray._private.worker._global_node


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


def _family(host: str) -> socket.AddressFamily:
    try:
        return socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return socket.AF_INET
