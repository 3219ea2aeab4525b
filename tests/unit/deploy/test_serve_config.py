"""Serve's configuration: taken by Serve's own schema, and cut into parts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from ray._common.utils import import_attr
from ray.serve.schema import ServeDeploySchema

from deploy.render import FOLDER
from deploy.serve_config import IDENTITY, read_config, serve_config
from serving.app.ray_environment import CLUSTER_SETTINGS
from serving.config import Config
from serving.demo import DEMO_CONFIG
from serving.errors import ConfigError
from tests.unit.conftest import WriteConfig

DEMO = yaml.safe_load(DEMO_CONFIG.read_text())


def serve_yaml() -> dict[str, Any]:
    document = yaml.safe_load((FOLDER / "serve.yaml").read_text())
    assert isinstance(document, dict)
    return document


def name_of(variant: str | dict[str, Any]) -> str:
    return variant if isinstance(variant, str) else variant["name"]


def arguments(document: dict[str, Any]) -> dict[str, Any]:
    config = Config.model_validate(document)
    return {one["name"]: one["args"] for one in serve_config(config)["applications"]}


def test_serve_takes_it_and_can_import_every_builder() -> None:
    schema = ServeDeploySchema.model_validate(serve_yaml())
    names = {
        f"{model['name']}--{name_of(variant)}"
        for model in DEMO["models"]
        for variant in model["variants"]
    }
    assert {one.name for one in schema.applications} == names | {"gateway", "quality"}
    for application in schema.applications:
        assert callable(import_attr(application.import_path))


def test_it_listens_where_the_configuration_says() -> None:
    assert serve_yaml()["http_options"]["host"] == DEMO["server"]["host"] == "127.0.0.1"
    assert serve_yaml()["http_options"]["port"] == DEMO["server"]["port"]


VARIANTS = ["fp32", "bf16", {"name": "small", "recipe": "int4"}]
CONFIG = {
    "models": [{"name": "m", "task": "embeddings", "source": "/models/m", "variants": VARIANTS}]
}


@pytest.mark.parametrize(
    ("key", "value", "replaced"),
    [
        ("slo_policy", "strict", set()),
        ("default_variant", "bf16", set()),
        ("quality", {"floor": 0.5}, set()),
        ("quality", {"shadow": {"rate": 0.5}}, {"fp32", "bf16", "small"}),
        ("variants", VARIANTS[:2], {"small"}),
        ("variants", [*VARIANTS[:2], {"name": "small", "recipe": "int4", "threads": 2}], {"small"}),
        ("variants", [{"name": "fp32", "threads": 2}, *VARIANTS[1:]], {"fp32"}),
    ],
)
def test_a_change_replaces_only_the_variants_that_it_concerns(
    key: str, value: Any, replaced: set[str]
) -> None:
    changed = copy.deepcopy(CONFIG)
    changed["models"][0][key] = value
    before, after = arguments(CONFIG), arguments(changed)
    different = {one for one in before if before[one] != after.get(one)}
    assert different == {"gateway", "quality", *(f"m--{variant}" for variant in replaced)}


def test_replicas_know_the_recipe_of_the_reference_and_the_folder_of_artifacts() -> None:
    base = {"name": "base", "recipe": "fp32", "runtime": "openvino", "threads": 2}
    model = {**CONFIG["models"][0], "variants": [base, *VARIANTS[1:]], "reference": "base"}
    given = arguments({"models": [model], "artifacts": {"folder": "/shared"}})["m--small"]
    assert given["models"][0]["variants"][1] == {key: base[key] for key in IDENTITY}
    assert given["artifacts"] == {"folder": "/shared"}


def test_replicas_know_what_drafts_for_them() -> None:
    small = {"name": "small", "recipe": "q4_0", "runtime": "llama.cpp", "threads": 2}
    fast = {"name": "fast", "recipe": "fp32", "draft": {"variant": "small"}}
    model = {**CONFIG["models"][0], "task": "generation", "variants": ["fp32", small, fast]}
    given = arguments({"models": [model]})["m--fast"]["models"][0]["variants"]
    assert given == [fast, small, {"name": "fp32", "recipe": "fp32"}]
    model["reference"] = "small"
    given = arguments({"models": [model]})["m--fast"]["models"][0]["variants"]
    assert given == [fast, small]


def test_another_number_of_gateways_restarts_no_variant() -> None:
    def with_gateways(number: int) -> dict[str, Any]:
        return arguments({**CONFIG, "server": {"gateways": number}})

    two, three = with_gateways(2), with_gateways(3)
    assert two["gateway"]["server"]["gateways"] == 2
    assert {name for name in two if two[name] != three[name]} == {"gateway", "quality"}


def test_a_key_is_not_written_into_a_manifest(write_config: WriteConfig) -> None:
    file = write_config(more="server: {api_key: secret}")
    with pytest.raises(ConfigError, match="QUANTSERVE_SERVER__API_KEY"):
        read_config(file)


def test_this_machine_s_environment_stays_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTSERVE_SERVER__PORT", "9000")
    assert read_config(DEMO_CONFIG).server.port == DEMO["server"]["port"]


def test_a_shell_gets_ray_s_settings() -> None:
    lines = (FOLDER / "ray.env").read_text().splitlines()
    assert dict(line.split("=", 1) for line in lines if line[0] != "#") == CLUSTER_SETTINGS
