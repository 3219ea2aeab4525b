"""Composes the Serve applications of a plan: one per variant, the gateway and the monitor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application, RunTarget
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import LoggingConfig

from serving.app.plan import Plan, PlannedVariant, longest_request_s
from serving.config import Config, VariantConfig
from serving.fork_server.stand_in import PRELOADED_VARIABLE
from serving.gateway.deployment import Gateway
from serving.gateway.variant_status import GATEWAY_APPLICATION, application_name
from serving.monitor.deployment import Monitor
from serving.replica.deployment import Replica
from serving.runtimes import RUNTIMES
from serving.seams import QUALITY_APPLICATION

PROXY_GRACE_S = 5.0

# Replicas share the machine's cores; Ray's books only have to have room for all of them.
ACTOR_CPUS = 0.01
ACTOR_GPUS = 0.01

# The routes write one line per request themselves, with the variant and the timings.
NO_ACCESS_LOG = LoggingConfig(enable_access_log=False)

HEALTH_CHECK_S = 5.0
"""How often Ray Serve looks whether a process is alive, which is how it notices that one died."""

UNLIMITED = 1_000_000
"""The batcher bounds the queue, for both paths at once; Serve's own limits must not come first."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an application is found.

    Attributes:
        name: Its name, which its one deployment bears too.
        route_prefix: Where its paths begin; None if clients reach it through the gateway only.
    """

    name: str
    route_prefix: str | None


GATEWAY = Place(GATEWAY_APPLICATION, "/")
QUALITY = Place(QUALITY_APPLICATION, None)


def variant_place(model: str, variant: str) -> Place:
    """Where one variant is found."""
    return Place(application_name(model, variant), f"/{model}/{variant}")


def proxy_timeout_s(config: Config) -> float:
    """Seconds after which the proxy gives a request up.

    The routes answer 504 before; this bounds what does not reach them, such as a request on the
    direct path of a variant that is still loading.
    """
    return longest_request_s(config.models, config.server) + PROXY_GRACE_S


def build_applications(
    config: Config, plan: Plan, options_of: Callable[[PlannedVariant], dict[str, Any]]
) -> list[RunTarget]:
    """Return the applications in the order in which they should start, the gateway first.

    Args:
        config: What to serve.
        plan: The same, with sources found.
        options_of: What a replica of a variant asks Ray for.
    """
    targets = [_run_target(GATEWAY, gateway_application(config))]
    for planned in plan.variants:
        model, variant = planned.model, planned.variant
        application = variant_application(planned, config, options_of(planned))
        targets.append(_run_target(variant_place(model.name, variant.name), application))
    targets.append(_run_target(QUALITY, quality_application(config)))
    return targets


def gateway_application(config: Config) -> Application:
    """The gateways; relative paths begin where this is called."""
    gateway = serve.deployment(
        name=GATEWAY.name,
        num_replicas=config.server.gateways,
        ray_actor_options={"num_cpus": ACTOR_CPUS},
        max_ongoing_requests=UNLIMITED,
        health_check_period_s=HEALTH_CHECK_S,
        graceful_shutdown_timeout_s=longest_request_s(config.models, config.server) + 5,
    )(Gateway)
    return gateway.bind(config, Path.cwd())


def quality_application(config: Config) -> Application:
    """The quality process; relative paths begin where this is called."""
    monitor = serve.deployment(
        name=QUALITY.name,
        ray_actor_options={"num_cpus": ACTOR_CPUS},
        max_ongoing_requests=UNLIMITED,
        health_check_period_s=HEALTH_CHECK_S,
    )(Monitor)
    return monitor.bind(config, Path.cwd())


def variant_application(
    planned: PlannedVariant, config: Config, options: dict[str, Any]
) -> Application:
    """One variant, whose replicas ask Ray for ``options``."""
    model, variant = planned.model, planned.variant
    deployment = serve.deployment(
        name=variant_place(model.name, variant.name).name,
        ray_actor_options=options,
        max_ongoing_requests=UNLIMITED,
        health_check_period_s=HEALTH_CHECK_S,
        graceful_shutdown_timeout_s=longest_request_s([model], config.server) + 5,
        # Of a variant with several replicas, whose constructor raises if it cannot load.
        max_constructor_retry_count=3,
        **_scaling(variant),
    )(Replica)
    store = Path(config.artifacts.folder)
    return deployment.bind(
        model,
        variant,
        planned.artifact,
        store,
        config.server,
        planned.draft,
        planned.compared_with,
    )


def machine_options(planned: PlannedVariant) -> dict[str, Any]:
    """What a replica asks Ray for, on a machine that all replicas share."""
    return _share_of_device(planned) | _forked_from(planned)


def node_options(planned: PlannedVariant) -> dict[str, Any]:
    """What a replica asks Ray for where Ray chooses its node, or has one started for it.

    The artifact may have to be prepared there, which is over before the replica opens it.
    """
    options = _share_of_device(planned)
    options["memory"] = max(planned.replica_bytes, planned.artifact.preparing_bytes)
    if planned.variant.threads is not None:
        options["num_cpus"] = planned.variant.threads
    return options


def _share_of_device(planned: PlannedVariant) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": ACTOR_CPUS}
    if planned.device == "cuda":
        options["num_gpus"] = ACTOR_GPUS
    return options


def _forked_from(planned: PlannedVariant) -> dict[str, Any]:
    """Have the replicas forked from the process that has imported their runtime, if one has."""
    runtime = planned.artifact.runtime
    if not RUNTIMES[runtime].preload:
        return {}
    return {"runtime_env": {"env_vars": {PRELOADED_VARIABLE: runtime}}}


def _scaling(variant: VariantConfig) -> dict[str, Any]:
    bounds = variant.autoscaling
    if bounds is None:
        return {"num_replicas": variant.replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=bounds.min,
            max_replicas=bounds.max,
            target_ongoing_requests=bounds.target,
        )
    }


def _run_target(place: Place, application: Application) -> RunTarget:
    return RunTarget(
        application,
        name=place.name,
        route_prefix=place.route_prefix,
        logging_config=NO_ACCESS_LOG,
    )
