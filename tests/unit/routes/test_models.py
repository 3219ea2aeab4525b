"""What ``GET /v1/models`` says of each variant."""

from dataclasses import replace

import pytest

from serving.recipes import RECIPES
from serving.seams import Description, PreparedAgreement, VariantForm
from tests.unit.routes.sites import MINILM, open_gateway

LOADED = {
    "artifact": "0123456789abcdef",
    "device": "cpu",
    "isa": "avx2",
    "weights_bytes": 100,
    "disk_bytes": 90,
    "kv_cache_bytes": 0,
    "resident_bytes": 200,
    "private_bytes": 150,
    "peak_bytes": 300,
    "load_seconds": 1.5,
    "max_tokens": 40,
}


def said(name: str, variant: str) -> dict:
    """What is said of a variant of either model, whatever its state."""
    return {
        "model": name,
        "variant": variant,
        "runtime": "torch",
        "recipe": variant,
        "recipe_summary": RECIPES[variant].summary,
        "path": f"/{name}/{variant}",
    }


async def test_there_is_one_entry_per_model_and_variant(gateway) -> None:
    answer = (await gateway.client.get("/v1/models")).json()
    assert answer["object"] == "list"
    assert [entry["id"] for entry in answer["data"]] == [
        "minilm:fp32",
        "minilm:bf16",
        "minilm:int4",
        "sentiment:fp32",
        "sentiment:int4",
    ]
    for entry in answer["data"]:
        assert (entry["object"], entry["owned_by"]) == ("model", "quantserve")
        assert isinstance(entry["created"], int)


async def test_an_entry_says_everything_of_a_loaded_variant(gateway) -> None:
    entry = (await gateway.client.get("/v1/models/sentiment:int4")).json()
    assert entry["quantserve"] == {
        **said("sentiment", "int4"),
        **LOADED,
        "aliases": [],
        "draft": None,
        "task": "classification",
        "width": 2,
        "labels": ["negative", "positive"],
        "default": False,
        "reference": False,
        "ready": True,
        "reason": None,
        "replicas": 1,
    }


async def test_what_was_measured_before_it_was_installed_is_said(
    gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = gateway.backends.encoder("sentiment", "int4")
    agreement = PreparedAgreement("agreement", 0.9875, 80, "dataset", "fp32 on torch")
    measured = replace(await backend.describe(), prepared_agreement=agreement)

    async def describe() -> Description:
        return measured

    monkeypatch.setattr(backend, "describe", describe)
    entry = (await gateway.client.get("/v1/models/sentiment:int4")).json()
    assert entry["quantserve"]["prepared_agreement"] == {
        "measure": "agreement",
        "value": 0.9875,
        "inputs": 80,
        "data": "dataset",
        "reference": "fp32 on torch",
    }


async def test_a_remark_of_a_replica_is_passed_on(gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = gateway.backends.encoder("sentiment", "int4")
    remarkable = replace(await backend.describe(), remark="slower than fp32 on this CPU")

    async def describe() -> Description:
        return remarkable

    monkeypatch.setattr(backend, "describe", describe)
    entry = (await gateway.client.get("/v1/models/sentiment:int4")).json()
    assert entry["quantserve"]["remark"] == "slower than fp32 on this CPU"


async def test_a_variant_that_is_not_ready_says_why_and_no_sizes(gateway) -> None:
    gateway.backends.reasons["minilm", "int4"] = "loading"
    entry = (await gateway.client.get("/v1/models/minilm:int4")).json()
    assert entry["quantserve"] == {
        **said("minilm", "int4"),
        **dict.fromkeys([*LOADED, "width", "labels"]),
        "aliases": [],
        "draft": None,
        "task": "embeddings",
        "default": False,
        "reference": False,
        "ready": False,
        "reason": "loading",
        "replicas": 0,
    }


async def test_a_variant_may_have_another_name_than_its_recipe() -> None:
    forms = {**MINILM.variants, "int8-ov": VariantForm("int8-static", "openvino")}
    site = open_gateway([replace(MINILM, variants=forms)])
    entry = (await site.client.get("/v1/models/minilm:int8-ov")).json()["quantserve"]
    assert (entry["variant"], entry["recipe"], entry["runtime"]) == (
        "int8-ov",
        "int8-static",
        "openvino",
    )
    assert entry["recipe_summary"] == RECIPES["int8-static"].summary


async def test_default_and_reference_are_marked(gateway) -> None:
    entries = (await gateway.client.get("/v1/models")).json()["data"]
    for mark, expected in (
        ("default", ["minilm:bf16", "sentiment:fp32"]),
        ("reference", ["minilm:fp32", "sentiment:fp32"]),
    ):
        assert [entry["id"] for entry in entries if entry["quantserve"][mark]] == expected


async def test_an_entry_of_the_list_is_the_one_of_its_own_route(site) -> None:
    for entry in (await site.client.get("/v1/models")).json()["data"]:
        assert (await site.client.get(f"/v1/models/{entry['id']}")).json() == entry


async def test_a_replica_lists_the_variant_that_it_holds(replica) -> None:
    [entry] = (await replica.client.get("/v1/models")).json()["data"]
    assert entry["id"] == "minilm:int4"


@pytest.mark.parametrize(
    ("path", "variant"), [("", "bf16"), ("/minilm/fp32", "fp32"), ("/minilm/int4", "int4")]
)
async def test_a_bare_name_is_the_default_variant_or_that_of_the_path(
    gateway, path: str, variant: str
) -> None:
    response = await gateway.client.get(f"{path}/v1/models/minilm")
    assert response.json()["id"] == f"minilm:{variant}"


async def test_a_bare_name_is_the_variant_that_a_replica_holds(replica) -> None:
    assert (await replica.client.get("/v1/models/minilm")).json()["id"] == "minilm:int4"


async def test_a_bare_name_whose_default_is_auto_is_the_reference() -> None:
    site = open_gateway([replace(MINILM, default_variant="auto", reference="int4")])
    assert (await site.client.get("/v1/models/minilm")).json()["id"] == "minilm:int4"


@pytest.mark.parametrize("model_id", ["gpt", "minilm:int2", "minilm:"])
async def test_an_unknown_id_is_404_with_the_known_ones(site, model_id: str) -> None:
    response = await site.client.get(f"/v1/models/{model_id}")
    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("not_found", "model")
    assert "minilm:int4" in error["message"]


@pytest.mark.parametrize("route", ["/v1/models", "/v2", "/healthz", "/v2/health/ready"])
async def test_below_an_unknown_model_there_is_nothing(gateway, route: str) -> None:
    response = await gateway.client.get(f"/no-such-model/int4{route}")
    assert response.status_code == 404
