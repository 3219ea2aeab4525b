"""RayService and PodMonitors of a configuration: ``python -m deploy.kuberay.manifest [CONFIG]``.

Variants that give neither ``replicas`` nor ``autoscaling`` get ``AUTOSCALING``, and those that give
no ``threads`` get one: a thread more than the pod may use only makes the others wait.
"""

from __future__ import annotations

import argparse
import math
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

from deploy.serve_config import read_config, serve_config, to_yaml
from serving.app.applications import proxy_timeout_s
from serving.app.ray_environment import CLUSTER_SETTINGS, METRICS_PORT
from serving.app.service import OBJECT_STORE_BYTES
from serving.config import Autoscaling, Config, VariantConfig
from serving.demo import DEMO_CONFIG
from serving.errors import ConfigError, QuantserveError

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yml"

NAME = "quantserve"
SECRET = {"name": NAME, "key": "api-key"}
AUTOSCALING = Autoscaling(min=1, max=3, target=4)
USER, HOME = 1000, "/home/quantserve"
"""The Dockerfile's user."""

HEAD = {"cpu": "2", "memory": "4Gi"}
WORKER = {"cpu": "4", "memory": "8Gi"}
WORKER_GIB_FOR_REPLICAS = 7
"""What Ray gives away of a worker's memory; the rest is for Ray, the proxy and the gateway."""

HEAD_PORTS = {"gcs-server": 6379, "dashboard": 8265, "client": 10001}
"""KubeRay's own. It gives them to the head's service only if the container names no port at all,
and without them neither workers nor the configuration of Serve reach the head."""

RAY_METRICS_PORT = 8080
"""Where KubeRay has Ray's agent in every pod serve Ray's own series."""

RAY_SERIES = (
    "ray_serve_deployment_replica_healthy",
    "ray_actors",
    "ray_node_mem_used_host",
    "ray_object_store_memory",
)
"""What *Service health* shows of Ray's own series; the other hundreds are not kept."""

RAY_SCRAPE = {"scrape_interval": "15s", "scrape_timeout": "10s"}
"""The agent renews its pages, of up to a megabyte, every 10 s."""

SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def ray_service(config: Config) -> dict[str, Any]:
    """The RayService: a head without replicas, and workers that come and go with them.

    Raises:
        ConfigError: A source would have to be downloaded.
    """
    _check_sources(config)
    config = for_cluster(config)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": NAME, "labels": {"app": NAME}},
        "spec": {
            "serveConfigV2": to_yaml(serve_config(config)),
            "rayClusterConfig": {
                "rayVersion": locked("ray"),
                # The operator makes the token and gives it to every pod.
                "authOptions": {"mode": CLUSTER_SETTINGS["RAY_AUTH_MODE"]},
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {"idleTimeoutSeconds": 300, "securityContext": SECURITY},
                "headGroupSpec": {
                    "rayStartParams": {
                        "num-cpus": "0",
                        "object-store-memory": str(OBJECT_STORE_BYTES),
                        "dashboard-host": "0.0.0.0",  # noqa: S104
                    },
                    "template": _pod(config, "head", HEAD),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "cpu",
                        "replicas": 1,
                        "minReplicas": 1,
                        "maxReplicas": 10,
                        "rayStartParams": {
                            "memory": str(WORKER_GIB_FOR_REPLICAS * 1024**3),
                            "object-store-memory": str(OBJECT_STORE_BYTES),
                        },
                        "template": _pod(config, "worker", WORKER),
                    }
                ],
            },
        },
    }


def pod_monitors(config: Config) -> list[dict[str, Any]]:
    """A PodMonitor per job of ``prometheus.yml``, and one for Ray's own series.

    The page of the gateway has every replica's series, so it is asked for at the head only; each
    pod's HAProxy has a page of its own, and so has each pod's Ray.
    """
    document = yaml.safe_load(PROMETHEUS.read_text(encoding="utf-8"))
    names = {port: name for name, port in _ports(config).items()}
    monitors = [
        _pod_monitor(names[_target_port(job)], job, document["global"])
        for job in document["scrape_configs"]
    ]
    keep = {"source_labels": ["__name__"], "regex": "|".join(RAY_SERIES), "action": "keep"}
    ray = {"job_name": "ray", "metric_relabel_configs": [keep]}
    return [*monitors, _pod_monitor("metrics", ray, RAY_SCRAPE)]


def for_cluster(config: Config) -> Config:
    """The configuration as it is served on a cluster: every pod's address, replicas that scale."""
    models = tuple(
        model.model_copy(update={"variants": tuple(map(_scaled, model.variants))})
        for model in config.models
    )
    server = config.server.model_copy(update={"host": "0.0.0.0"})  # noqa: S104
    return config.model_copy(update={"models": models, "server": server})


def locked(package: str) -> str:
    """The version of a package in ``constraints.txt``."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(
        version for name, _, version in (line.partition("==") for line in lines) if name == package
    )


def image() -> str:
    """Name and tag of the image that the Dockerfile makes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return f"{project['name']}:{project['version']}"


def _check_sources(config: Config) -> None:
    # The builder downloads in the pod that it runs in, and gives the replicas a path to a folder
    # that their own pods do not have.
    for number, model in enumerate(config.models):
        sources = {"source": model.source} | {
            f"variants[{place}].source": variant.source
            for place, variant in enumerate(model.variants)
            if variant.source is not None
        }
        for key, source in sources.items():
            if source.startswith("hf:"):
                raise ConfigError(
                    f"models[{number}].{key}: {source!r} would be downloaded in one pod, and the "
                    "others would not have it; put the files into the image, or on a volume that "
                    "every pod mounts, and name their folder"
                )


def _scaled(variant: VariantConfig) -> VariantConfig:
    given: dict[str, Any] = {}
    if variant.autoscaling is None and "replicas" not in variant.model_fields_set:
        given["autoscaling"] = AUTOSCALING
    if variant.threads is None:
        given["threads"] = 1
    return variant.model_copy(update=given)


def _pod(config: Config, role: str, resources: dict[str, str]) -> dict[str, Any]:
    # authOptions sets the mode too, and a variable may be given once.
    settings = {k: v for k, v in CLUSTER_SETTINGS.items() if k != "RAY_AUTH_MODE"}
    longest_s = math.ceil(proxy_timeout_s(config))
    # Without it, what has not been answered 30 s after SIGTERM is lost.
    settings["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = str(longest_s)
    key = {
        "name": "QUANTSERVE_SERVER__API_KEY",
        "valueFrom": {"secretKeyRef": {**SECRET, "optional": True}},
    }
    ports = {**(HEAD_PORTS if role == "head" else {}), **_ports(config)}
    container = {
        "name": f"ray-{role}",
        "image": image(),
        "env": [*({"name": name, "value": value} for name, value in settings.items()), key],
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {**SECURITY, "readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "artifacts", "mountPath": config.artifacts.folder.replace("~", HOME, 1)},
            {"name": "evidence", "mountPath": config.evidence.folder.replace("~", HOME, 1)},
        ],
    }
    return {
        "metadata": {"labels": _labels(role)},
        "spec": {
            # Else Kubernetes puts the address of every Service into the pod, as
            # QUANTSERVE_SERVE_SVC_SERVICE_HOST and the like: unknown settings, which are refused.
            "enableServiceLinks": False,
            "containers": [container],
            "volumes": [
                {"name": "tmp", "emptyDir": {}},
                # Each pod makes its own; a volume that all of them mount makes each once.
                {"name": "artifacts", "emptyDir": {}},
                # Of the pod where the quality process runs; it goes with the pod.
                {"name": "evidence", "emptyDir": {}},
            ],
            "terminationGracePeriodSeconds": longest_s + 30,
        },
    }


def _labels(role: str) -> dict[str, str]:
    return {"app": NAME, "app.kubernetes.io/component": role}


def _ports(config: Config) -> dict[str, int]:
    return {"serve": config.server.port, "haproxy": METRICS_PORT, "metrics": RAY_METRICS_PORT}


def _target_port(job: dict[str, Any]) -> int:
    [[target]] = [static["targets"] for static in job["static_configs"]]
    return int(target.rpartition(":")[2])


def _pod_monitor(port: str, job: dict[str, Any], times: dict[str, str]) -> dict[str, Any]:
    endpoint = {
        "port": port,
        "interval": times["scrape_interval"],
        "scrapeTimeout": times["scrape_timeout"],
        # Rules and dashboards know the jobs by these names.
        "relabelings": [{"targetLabel": "job", "replacement": job["job_name"]}],
    }
    if rules := [_camel(rule) for rule in job.get("metric_relabel_configs", ())]:
        endpoint["metricRelabelings"] = rules
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": f"{NAME}-{port}", "labels": {"app": NAME}},
        "spec": {
            "selector": {"matchLabels": _labels("head") if port == "serve" else {"app": NAME}},
            "podMetricsEndpoints": [endpoint],
        },
    }


def _camel(rule: dict[str, Any]) -> dict[str, Any]:
    """A relabelling rule with Prometheus's keys, in the operator's spelling."""
    words = {key: key.split("_") for key in rule}
    return {
        first + "".join(word.capitalize() for word in more): rule[key]
        for key, (first, *more) in words.items()
    }


def main() -> int:
    """Print the manifests, or what is wrong with the configuration."""
    parser = argparse.ArgumentParser(prog="python -m deploy.kuberay.manifest", description=__doc__)
    parser.add_argument("config", nargs="?", type=Path, default=DEMO_CONFIG)
    try:
        config = read_config(parser.parse_args().config)
        documents = [ray_service(config), *pod_monitors(config)]
    except QuantserveError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write("---\n".join(map(to_yaml, documents)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
