"""Builders give Ray the applications that the service itself would start. No Ray runs here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
from ray.serve import Application

from deploy.serve_config import read_config, serve_config
from serving.app import builders
from serving.app.applications import ACTOR_CPUS, build_applications, machine_options
from serving.app.plan import make_plan
from serving.errors import ConfigError
from serving.settings import load_config
from tests.unit.conftest import WriteConfig

VARIANTS = "[fp32, {name: bf16, threads: 3, autoscaling: {min: 2, max: 5, target: 1.5}}]"


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What Ray says that the cluster has; none, unless the test adds one."""
    resources: dict[str, float] = {}
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    return resources


def arguments_of(config: Path) -> dict[str, dict[str, Any]]:
    """The builders' arguments by application."""
    applications = serve_config(read_config(config))["applications"]
    return {application["name"]: application["args"] for application in applications}


def deployment_of(application: Application) -> Any:
    return application._bound_deployment


def test_there_are_as_many_gateways_as_the_configuration_says(write_config: WriteConfig) -> None:
    arguments = arguments_of(write_config(more="server: {gateways: 2}"))["gateway"]
    assert deployment_of(builders.gateway(arguments))._deployment_config.num_replicas == 2


def test_a_builder_gives_what_the_service_would_start(
    write_config: WriteConfig, gpus: dict[str, float]
) -> None:
    file = write_config(VARIANTS)
    config = load_config(file)
    started = build_applications(config, make_plan(config), machine_options)
    described = serve_config(read_config(file))["applications"]
    assert [(one["name"], one["route_prefix"]) for one in described] == [
        (target.name, target.route_prefix) for target in started
    ]
    for target, one in zip(started, described, strict=True):
        build = getattr(builders, one["import_path"].partition(":")[2])
        expected, built = deployment_of(target.target), deployment_of(build(one["args"]))
        assert built.name == expected.name
        assert built.func_or_class.__name__ == expected.func_or_class.__name__
        ours, theirs = built._deployment_config, expected._deployment_config
        assert ours.num_replicas == theirs.num_replicas
        assert ours.autoscaling_config == theirs.autoscaling_config
        assert ours.graceful_shutdown_timeout_s == theirs.graceful_shutdown_timeout_s
        # A variant's model lists fewer of its siblings; everything else is the same.
        first = 1 if one["import_path"].endswith(":variant") else 0
        assert built.init_args[first:] == expected.init_args[first:]


def test_a_replica_asks_for_its_estimated_memory_and_for_its_threads(
    write_config: WriteConfig, gpus: dict[str, float]
) -> None:
    file = write_config(VARIANTS)
    arguments = arguments_of(file)
    fp32, bf16 = (
        deployment_of(builders.variant(arguments[f"tiny--{name}"])).ray_actor_options
        for name in ("fp32", "bf16")
    )
    assert fp32["num_cpus"] == ACTOR_CPUS
    assert bf16["num_cpus"] == 3
    _, planned = make_plan(load_config(file)).variants
    # Ray may choose a node that has no artifact yet.
    assert bf16["memory"] == max(planned.replica_bytes, planned.artifact.preparing_bytes)


@pytest.mark.parametrize(
    ("device", "cluster", "asks"),
    [("auto", 0, False), ("auto", 1, True), ("cpu", 1, False), ("cuda", 0, True)],
)
def test_a_gpu_is_asked_for_where_one_is_named_or_there(
    write_config: WriteConfig, gpus: dict[str, float], device: str, cluster: int, asks: bool
) -> None:
    gpus["GPU"] = cluster
    arguments = arguments_of(write_config(f"[{{name: fp32, device: {device}}}]"))
    options = deployment_of(builders.variant(arguments["tiny--fp32"])).ray_actor_options
    assert ("num_gpus" in options) == asks


def test_the_environment_where_ray_runs_gives_the_key(
    write_config: WriteConfig, gpus: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = arguments_of(write_config())
    monkeypatch.setenv("QUANTSERVE_SERVER__API_KEY", "secret")
    _, _, _, _, server, *_ = deployment_of(builders.variant(arguments["tiny--fp32"])).init_args
    assert server.api_key.get_secret_value() == "secret"
    config, _ = deployment_of(builders.gateway(arguments["gateway"])).init_args
    assert config.server == server


@pytest.mark.parametrize("change", [{"variant": "int4"}, {"variant": None}, {"vriant": "fp32"}])
def test_wrong_arguments_are_refused(
    write_config: WriteConfig, gpus: dict[str, float], change: dict[str, Any]
) -> None:
    arguments = arguments_of(write_config("[fp32]"))["tiny--fp32"]
    with pytest.raises(ConfigError, match="arguments of a variant"):
        builders.variant({**arguments, **change})
