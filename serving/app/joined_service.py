"""Serves on a Ray cluster that runs already, and leaves the cluster as it was.

Import only after ``join_ray_environment``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import ray
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation

from serving.app.applications import (
    NO_ACCESS_LOG,
    build_applications,
    node_options,
    proxy_timeout_s,
)
from serving.app.deploying import deploy, shut_down
from serving.app.plan import Plan, longest_request_s
from serving.config import Config
from serving.errors import StartError


class JoinedService:
    """The service on the cluster of which this machine is a node.

    Args:
        address: Of the cluster's head, as ``HOST:PORT``; ``auto`` for that of this machine's node.

    Raises:
        StartError: This machine is in no cluster of that address, or the cluster serves already.
    """

    def __init__(self, address: str) -> None:
        if "://" in address:
            raise StartError(
                f"--address {address}: Ray's client cannot start a service; run this on a node of "
                "the cluster, with the head's HOST:PORT, or auto"
            )
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray has no class of its own for most of what can happen
            raise StartError(
                f"--address {address}: cannot join: {error} Does `quantserve node` (or `ray "
                "start`, with the settings of deploy/ray.env) run here, with the cluster's token?"
            ) from error
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        self._longest_request_s = 0.0
        if served := sorted(serve.status().applications):
            ray.shutdown()
            raise StartError(
                f"--address {address}: the cluster serves already: {', '.join(served)}; end that "
                "with `serve shutdown`, or change it with `serve deploy`"
            )

    @property
    def has_cuda(self) -> bool:
        """Whether a node has a GPU that Ray knows of."""
        return bool(ray.cluster_resources().get("GPU", 0))

    @property
    def num_nodes(self) -> int:
        """Nodes that live."""
        return sum(node["Alive"] for node in ray.nodes())

    def require_ray(self) -> None:
        """Nothing: Ray's processes are those of ``quantserve node``, which ends with them."""

    @property
    def log_directory(self) -> Path:
        """Where Ray writes the logs of this node's processes."""
        return Path(ray._private.worker._global_node.get_logs_dir_path()) / "serve"  # type: ignore[attr-defined]

    def start(
        self, config: Config, plan: Plan, show_stage: Callable[[str], None] = lambda stage: None
    ) -> None:
        """Start the gateway, then everything else, and return; the gateway tells how far it is.

        Every node gets a proxy. Replicas go where Ray has what they ask for, and prepare there what
        the node's store lacks.

        Args:
            config: What to serve.
            plan: The same, with sources found.
            show_stage: Told what happens before the gateway can tell.

        Raises:
            StartError: Serve's proxies or the gateway did not come up.
        """
        self._longest_request_s = longest_request_s(config.models, config.server)
        show_stage("starting Ray Serve")
        try:
            serve.start(
                proxy_location=ProxyLocation.EveryNode,
                http_options=HTTPOptions(
                    host=config.server.host,
                    port=config.server.port,
                    request_timeout_s=proxy_timeout_s(config),
                ),
                logging_config=NO_ACCESS_LOG,
            )
        except Exception as error:  # likewise
            raise StartError(f"Ray Serve did not start: {error}") from error
        deploy(build_applications(config, plan, node_options), show_stage)

    def stop(self) -> None:
        """Let requests in flight finish, then end everything that ``start`` started."""
        with contextlib.closing(self):
            shut_down(self._longest_request_s)

    def close(self) -> None:
        """Leave the cluster."""
        ray.shutdown()
