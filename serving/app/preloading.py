"""What the fork servers of a service import; imports no Ray, so that they can start before it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from serving.app.plan import Plan
from serving.fork_server.stand_in import DEFAULT_SERVER
from serving.fork_server.starting import ForkServers
from serving.runtimes import RUNTIMES

EARLY = ("serving.routes.api", "serving.tasks", "serving.generator", "serving.metrics")
"""What the gateway, replicas and the quality process import, and what does without Ray."""

LATE = (
    "ray.serve._private.replica",
    "serving.gateway.deployment",
    "serving.monitor.deployment",
    "serving.replica.deployment",
)


def start_fork_servers(plan: Plan, run_directory: Path) -> ForkServers:
    """Start one server for everything, and one for each large runtime that the plan uses.

    Args:
        plan: What will be served.
        run_directory: What ``prepare_ray_environment`` returned.
    """
    servers = ForkServers(run_directory, early_modules(plan), LATE)
    servers.start()
    return servers


def early_modules(plan: Plan) -> dict[str, Sequence[str]]:
    """What each server imports at once, by its name."""
    used = sorted({planned.artifact.runtime for planned in plan.variants})
    large = {name: RUNTIMES[name].preload for name in used if RUNTIMES[name].preload}
    return {DEFAULT_SERVER: EARLY} | {name: (*EARLY, *modules) for name, modules in large.items()}
