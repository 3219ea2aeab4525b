"""Composes the Serve applications of a plan: one per variant, the gateway and the monitor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import RunTarget
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import LoggingConfig

from serving.app.plan import Plan, PlannedVariant, longest_request_s
from serving.app.ray_environment import GENERATOR_KERNEL_THREADS
from serving.config import Config, ModelConfig, VariantConfig
from serving.gateway.deployment import Gateway
from serving.gateway.variant_status import application_name
from serving.monitor.deployment import Monitor
from serving.replica.deployment import Replica
from serving.seams import QUALITY_APPLICATION
from serving.tasks import GENERATION_TASKS

GATEWAY = "gateway"

# Replicas share the machine's cores; Ray's books only have to have room for all of them.
ACTOR_CPUS = 0.01
ACTOR_GPUS = 0.01

# The routes write one line per request themselves, with the variant and the timings.
NO_ACCESS_LOG = LoggingConfig(enable_access_log=False)

UNLIMITED = 1_000_000
"""The batcher bounds the queue, for both paths at once; Serve's own limits must not come first."""


def build_applications(config: Config, plan: Plan, has_gpu: bool) -> list[RunTarget]:
    """Return the applications in the order in which they should start, the gateway first."""
    gateway = serve.deployment(
        name=GATEWAY,
        ray_actor_options={"num_cpus": ACTOR_CPUS},
        max_ongoing_requests=UNLIMITED,
        graceful_shutdown_timeout_s=longest_request_s(config.models, config.server) + 5,
    )(Gateway)
    targets = [
        RunTarget(
            gateway.bind(config), name=GATEWAY, route_prefix="/", logging_config=NO_ACCESS_LOG
        )
    ]
    targets += [_variant_application(config, planned, has_gpu) for planned in plan.variants]
    targets.append(_monitor_application(config))
    return targets


def _monitor_application(config: Config) -> RunTarget:
    monitor = serve.deployment(
        name=QUALITY_APPLICATION,
        ray_actor_options={"num_cpus": ACTOR_CPUS},
        max_ongoing_requests=UNLIMITED,
    )(Monitor)
    # Without a route: clients reach it through the gateway's routes only.
    return RunTarget(
        monitor.bind(config, Path.cwd()),
        name=QUALITY_APPLICATION,
        route_prefix=None,
        logging_config=NO_ACCESS_LOG,
    )


def _variant_application(config: Config, planned: PlannedVariant, has_gpu: bool) -> RunTarget:
    model, variant = planned.model, planned.variant
    name = application_name(model.name, variant.name)
    deployment = serve.deployment(
        name=name,
        ray_actor_options=_actor_options(model, variant, has_gpu),
        max_ongoing_requests=UNLIMITED,
        graceful_shutdown_timeout_s=longest_request_s([model], config.server) + 5,
        # Of a variant with several replicas, whose constructor raises if it cannot load.
        max_constructor_retry_count=3,
        **_scaling(variant),
    )(Replica)
    application = deployment.bind(model, variant, planned.checkpoint, config.server)
    return RunTarget(
        application,
        name=name,
        route_prefix=f"/{model.name}/{variant.name}",
        logging_config=NO_ACCESS_LOG,
    )


def _actor_options(model: ModelConfig, variant: VariantConfig, has_gpu: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": ACTOR_CPUS}
    if model.task in GENERATION_TASKS:
        options["runtime_env"] = {"env_vars": GENERATOR_KERNEL_THREADS}
    if has_gpu and variant.device != "cpu":
        options["num_gpus"] = ACTOR_GPUS
    return options


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
