"""The Kubernetes manifests: what Serve, the image and Prometheus expect is what they say."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray._private import ray_constants
from ray.serve.schema import ServeDeploySchema

from deploy.kuberay.manifest import HOME, RAY_SERIES, WORKER_GIB_FOR_REPLICAS, main, ray_service
from deploy.render import FOLDER
from serving.app.ray_environment import CLUSTER_SETTINGS
from serving.config import ArtifactsConfig, Config, EvidenceConfig
from serving.settings import make_config
from tests.unit.deploy.metric_names import PROMETHEUS, ROOT

SERVICE: dict[str, Any] = yaml.safe_load((FOLDER / "kuberay/rayservice.yaml").read_text())
MONITORS: list[dict[str, Any]] = list(
    yaml.safe_load_all((FOLDER / "kuberay/podmonitors.yaml").read_text())
)
SERVE: dict[str, Any] = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])
CLUSTER = SERVICE["spec"]["rayClusterConfig"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]
PODS = [group["template"] for group in GROUPS]
HEAD, WORKER = PODS
RAY = Path(ray.__file__).parent


def container(pod: dict[str, Any]) -> dict[str, Any]:
    [found] = pod["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_serve_takes_the_same_applications_as_on_one_machine() -> None:
    schema = ServeDeploySchema.model_validate(SERVE)
    single = yaml.safe_load((FOLDER / "serve.yaml").read_text())
    assert [(one.name, one.route_prefix, one.import_path) for one in schema.applications] == [
        (one["name"], one["route_prefix"], one["import_path"]) for one in single["applications"]
    ]
    assert schema.http_options.host == "0.0.0.0"


def test_every_variant_scales_by_itself() -> None:
    variants = [one for one in SERVE["applications"] if "variant" in one["args"]]
    assert variants
    for one in variants:
        arguments = {key: value for key, value in one["args"].items() if key != "variant"}
        [model] = make_config(arguments, one["name"]).models
        bounds = {variant.name: variant.autoscaling for variant in model.variants}
        chosen = bounds[one["args"]["variant"]]
        assert chosen is not None
        assert chosen.max > 1


def test_scaling_that_the_configuration_gives_is_kept() -> None:
    model = {
        "name": "m",
        "task": "embeddings",
        "source": "/models/m",
        "variants": [{"name": "fp32", "replicas": 2, "threads": 4}],
    }
    service = ray_service(Config.model_validate({"models": [model]}))
    [_, variant, _] = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    [given] = variant["args"]["models"][0]["variants"]
    assert given == {"name": "fp32", "recipe": "fp32", "replicas": 2, "threads": 4}


@pytest.mark.parametrize("pod", PODS, ids=["head", "worker"])
def test_ray_s_settings_are_in_every_pod(pod: dict[str, Any]) -> None:
    given = {one["name"]: one.get("value") for one in container(pod)["env"]}
    assert len(given) == len(container(pod)["env"])
    # The operator gives the mode and the token.
    assert CLUSTER["authOptions"]["mode"] == CLUSTER_SETTINGS["RAY_AUTH_MODE"]
    expected = {k: v for k, v in CLUSTER_SETTINGS.items() if k != "RAY_AUTH_MODE"}
    assert {name: given.get(name) for name in expected} == expected


@pytest.mark.parametrize("pod", PODS, ids=["head", "worker"])
def test_a_pod_may_do_little(pod: dict[str, Any]) -> None:
    may = container(pod)["securityContext"]
    assert may["runAsNonRoot"]
    assert may["readOnlyRootFilesystem"]
    assert not may["allowPrivilegeEscalation"]
    assert f"USER {may['runAsUser']}" in (FOLDER / "Dockerfile").read_text()
    mounts = {one["name"]: one["mountPath"] for one in container(pod)["volumeMounts"]}
    kept = {"artifacts": ArtifactsConfig().folder, "evidence": EvidenceConfig().folder}
    folders = {name: folder.replace("~", HOME) for name, folder in kept.items()}
    assert mounts == {"tmp": "/tmp", **folders}
    assert {one["name"] for one in pod["spec"]["volumes"]} == set(mounts)
    key = next(one for one in container(pod)["env"] if one["name"].startswith("QUANTSERVE_"))
    assert key["name"] == "QUANTSERVE_SERVER__API_KEY"
    assert "value" not in key
    # Else Kubernetes adds a QUANTSERVE_ variable for each of our own Services.
    assert pod["spec"]["enableServiceLinks"] is False


def test_versions_are_those_of_the_lock_and_of_the_image() -> None:
    locked = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={CLUSTER['rayVersion']}" in locked
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    images = {container(pod)["image"] for pod in PODS}
    assert images == {compose["services"]["quantserve"]["image"]}


def test_ray_gives_away_less_memory_than_a_worker_has() -> None:
    limit = int(container(WORKER)["resources"]["limits"]["memory"].removesuffix("Gi"))
    assert limit > WORKER_GIB_FOR_REPLICAS
    given = int(CLUSTER["workerGroupSpecs"][0]["rayStartParams"]["memory"])
    assert given == WORKER_GIB_FOR_REPLICAS * 1024**3


def test_start_parameters_are_text() -> None:
    for group in GROUPS:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_requests_may_finish_before_a_pod_ends() -> None:
    for pod in PODS:
        grace = pod["spec"]["terminationGracePeriodSeconds"]
        given = {one["name"]: one.get("value") for one in container(pod)["env"]}
        # Ray ends what is left after that, whatever Kubernetes would still wait.
        drained = float(given["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert grace > drained >= SERVE["http_options"]["request_timeout_s"]


def test_ray_knows_the_setting_by_which_it_waits() -> None:
    constants = Path(ray_constants.__file__).read_text()
    assert 'env_float(\n    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"' in constants


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("source", {"source": "hf:org/m@main"}),
        ("variants[1].source", {"variants": ["fp32", {"name": "x", "source": "hf:org/m@main"}]}),
    ],
)
def test_a_source_that_only_one_pod_would_have_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
    change: dict[str, Any],
) -> None:
    file = tmp_path / "config.yaml"
    plain = {"name": "m", "task": "embeddings", "source": "/models/m", "variants": ["fp32"]}
    model = {**plain, **change}
    file.write_text(json.dumps({"models": [model]}))  # JSON is YAML
    monkeypatch.setattr(sys, "argv", ["manifest", str(file)])
    assert main() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"models[0].{key}" in said.err
    assert "hf:org/m@main" in said.err
    assert "volume" in said.err


def test_the_head_names_the_ports_without_which_nothing_reaches_it() -> None:
    # The operator adds its own to the head's service only if the container names none.
    ports = [{one["name"]: one["containerPort"] for one in container(pod)["ports"]} for pod in PODS]
    reached = {"gcs-server": 6379, "dashboard": 8265, "client": 10001}
    assert reached.items() <= ports[0].items()
    assert not reached.keys() & ports[1].keys()
    for named in ports:
        assert named["serve"] == SERVE["http_options"]["port"]
        assert len(set(named.values())) == len(named)


def test_every_job_of_prometheus_is_scraped_once_and_so_is_ray() -> None:
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    relabelled = {}
    for monitor in MONITORS:
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        [job] = [rule["replacement"] for rule in endpoint["relabelings"]]
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        chosen = [pod for pod in PODS if wanted <= pod["metadata"]["labels"].items()]
        ports = {
            one["containerPort"]
            for pod in chosen
            for one in container(pod)["ports"]
            if one["name"] == endpoint["port"]
        }
        relabelled[job] = (len(chosen), ports)
    expected = {
        job["job_name"]: {int(job["static_configs"][0]["targets"][0].split(":")[1])} for job in jobs
    }
    expected["ray"] = {8080}  # where the operator has Ray serve its own series
    assert {job: ports for job, (_, ports) in relabelled.items()} == expected
    # The gateway's page has every replica's series; asked for at each pod, all would count twice.
    assert relabelled["quantserve"][0] == 1
    assert relabelled["haproxy"][0] == relabelled["ray"][0] == len(PODS)


def test_of_ray_s_series_those_are_kept_that_the_collapsed_row_shows() -> None:
    [endpoint] = [
        endpoint
        for monitor in MONITORS
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
        if endpoint["port"] == "metrics"
    ]
    [kept] = [rule["regex"] for rule in endpoint["metricRelabelings"]]
    board = json.loads((FOLDER / "grafana/dashboards/service-health.json").read_text())
    [row] = [panel for panel in board["panels"] if panel.get("collapsed")]
    expressions = [target["expr"] for panel in row["panels"] for target in panel["targets"]]
    shown = {name for one in expressions for name in re.findall(r"\bray_\w+", one)}
    assert set(kept.split("|")) == shown


def test_ray_has_the_series_that_are_kept() -> None:
    # Not asked of a running Ray, which serves them on Kubernetes only: looked up in its sources.
    places = ["serve/_private/deployment_state.py", "dashboard/modules/reporter/reporter_agent.py"]
    sources = "".join((RAY / place).read_text() for place in places)
    panels = (RAY / "dashboard/modules/metrics/dashboards/default_dashboard_panels.py").read_text()
    for name in RAY_SERIES:
        assert f'"{name.removeprefix("ray_")}"' in sources or f"{name}{{" in panels, name


def test_relabelling_has_the_operator_s_spelling() -> None:
    rules = [
        rule
        for monitor in MONITORS
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
        for rule in endpoint.get("metricRelabelings", ())
    ]
    assert rules
    known = {"sourceLabels", "separator", "regex", "targetLabel", "replacement", "action"}
    for rule in rules:
        assert set(rule) <= known
