"""Every combination of places that can name a model and a variant."""

from dataclasses import replace
from itertools import product

import pytest

from serving.errors import ConflictingChoice, InvalidField, Unknown
from serving.routes.selection import Choice, select, split_model
from tests.unit.routes.sites import (
    MINILM,
    MODELS,
    SENTIMENT,
    embeddings_body,
    open_gateway,
    open_replica,
)

CATALOG = {model.name: model for model in MODELS}

# Path, header, field and suffix; each names fp32, int4 or nothing. bf16 is the default.
COMBINATIONS = list(product([None, "fp32", "int4"], repeat=4))


def named(*variants: str | None) -> set[str]:
    return {variant for variant in variants if variant is not None}


AGREEING = [places for places in COMBINATIONS if len(named(*places)) <= 1]
CONFLICTING = [places for places in COMBINATIONS if len(named(*places)) == 2]


def choose(path, header, field, suffix) -> str:
    """Select a variant of minilm as a route would."""
    models = [Choice("body field model", f"minilm:{suffix}" if suffix else "minilm")]
    places = [("the path", path), ("header X-Variant", header), ("body field variant", field)]
    variants = [Choice(where, value) for where, value in places if value is not None]
    model, variant = select(CATALOG, models, variants)
    assert model is MINILM
    return variant


@pytest.mark.parametrize(("path", "header", "field", "suffix"), AGREEING)
def test_equal_choices_are_one_choice(path, header, field, suffix) -> None:
    expected = next(iter(named(path, header, field, suffix)), "bf16")
    assert choose(path, header, field, suffix) == expected


@pytest.mark.parametrize(("path", "header", "field", "suffix"), CONFLICTING)
def test_different_choices_are_refused(path, header, field, suffix) -> None:
    with pytest.raises(ConflictingChoice) as caught:
        choose(path, header, field, suffix)
    assert caught.value.param == "variant"


@pytest.mark.parametrize(("path", "header", "field", "suffix"), COMBINATIONS)
async def test_the_routes_read_all_four_places(gateway, path, header, field, suffix) -> None:
    response = await gateway.client.post(
        f"/minilm/{path}/v1/embeddings" if path else "/v1/embeddings",
        headers={"X-Variant": header} if header else {},
        json={
            "model": f"minilm:{suffix}" if suffix else "minilm",
            "input": "a cat",
            **({"variant": field} if field else {}),
        },
    )
    variants = named(path, header, field, suffix)
    expected = 400 if len(variants) == 2 else 200
    assert response.status_code == expected
    if expected == 200:
        assert response.headers["X-Variant"] == next(iter(variants), "bf16")
        assert response.json()["model"] == f"minilm:{response.headers['X-Variant']}"


@pytest.mark.parametrize(
    ("models", "variants", "expected"),
    [
        (["minilm:fp32"], ["int4"], "header names variant 'int4', suffix of model 0 names 'fp32'"),
        (["minilm:fp32", "minilm:int4"], [], "suffix of model 0 names variant 'fp32', suffix of"),
        (["minilm", "sentiment"], [], "model 0 names model 'minilm', model 1 names 'sentiment'"),
    ],
)
def test_a_conflict_names_both_places_and_values(models, variants, expected: str) -> None:
    places = [Choice(f"model {index}", value) for index, value in enumerate(models)]
    with pytest.raises(ConflictingChoice, match=expected):
        select(CATALOG, places, [Choice("header", value) for value in variants])


def test_a_model_may_be_named_twice() -> None:
    models = [Choice("the path", "sentiment"), Choice("body field model", "sentiment:int4")]
    assert select(CATALOG, models, []) == (SENTIMENT, "int4")


def test_no_model_is_refused() -> None:
    with pytest.raises(InvalidField, match="model is missing") as caught:
        select(CATALOG, [], [Choice("header X-Variant", "int4")])
    assert caught.value.param == "model"


@pytest.mark.parametrize("model", ["gpt", "", ":int4", "MINILM", "minilm/int4", "all/minilm"])
def test_an_unknown_model_is_refused_with_the_known_ones(model: str) -> None:
    with pytest.raises(Unknown, match="served: minilm, sentiment") as caught:
        select(CATALOG, [Choice("body field model", model)], [])
    assert caught.value.param == "model"


@pytest.mark.parametrize("variant", ["int8", "", "FP32", "int4:fp32", "auto"])
def test_an_unknown_variant_is_refused_with_the_model_s_own(variant: str) -> None:
    for models, variants in ([f"minilm:{variant}"], []), (["minilm"], [variant]):
        with pytest.raises(Unknown, match="served: fp32, bf16, int4") as caught:
            select(CATALOG, [Choice("body", m) for m in models], [Choice("h", v) for v in variants])
        assert caught.value.param == "variant"


def test_a_variant_of_another_model_is_unknown() -> None:
    with pytest.raises(Unknown, match="served: fp32, int4"):
        select(CATALOG, [Choice("body field model", "sentiment:bf16")], [])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("minilm", ("minilm", None)),
        ("minilm:int4", ("minilm", "int4")),
        ("minilm:", ("minilm", "")),
        ("a:b:c", ("a", "b:c")),
    ],
)
def test_the_suffix_of_a_model_starts_at_its_first_colon(model: str, expected) -> None:
    assert split_model(CATALOG, model) == expected


HUB_NAME, WITH_COLON = "sentence-transformers/all-MiniLM-L6-v2", "mini:lm"
ALIASED = replace(MINILM, aliases=(HUB_NAME, WITH_COLON))
VARIANTS_OF_ALIASES = [
    (HUB_NAME, "bf16"),
    (f"{HUB_NAME}:int4", "int4"),
    (WITH_COLON, "bf16"),
    (f"{WITH_COLON}:int4", "int4"),
    ("minilm:int4", "int4"),
]


@pytest.mark.parametrize(("model", "variant"), VARIANTS_OF_ALIASES)
async def test_an_alias_stands_for_the_name(model: str, variant: str) -> None:
    site = open_gateway((ALIASED, SENTIMENT))
    response = await site.client.post("/v1/embeddings", json=embeddings_body(model=model))
    assert response.json()["model"] == f"minilm:{variant}"
    found = await site.client.get(f"/v1/models/{model}")
    assert found.json()["id"] == f"minilm:{variant}"
    assert found.json()["quantserve"]["aliases"] == [HUB_NAME, WITH_COLON]


async def test_an_alias_on_the_direct_path() -> None:
    site = open_replica(ALIASED, "int4")
    for model in (HUB_NAME, f"{HUB_NAME}:int4"):
        response = await site.client.post("/v1/embeddings", json=embeddings_body(model=model))
        assert response.json()["model"] == "minilm:int4"
    response = await site.client.post("/v1/embeddings", json=embeddings_body(model="sentiment"))
    assert response.status_code == 400


@pytest.mark.parametrize("model", ["org/other", f"{HUB_NAME}:int8", f"{HUB_NAME}/x", "mini"])
async def test_an_alias_that_is_none(model: str) -> None:
    site = open_gateway((ALIASED, SENTIMENT))
    response = await site.client.post("/v1/embeddings", json=embeddings_body(model=model))
    assert response.status_code == 404
    assert (await site.client.get(f"/v1/models/{model}")).status_code == 404


@pytest.mark.parametrize("changes", [{"model": None}, {"model": "minilm"}, {"variant": "int4"}])
async def test_the_direct_path_needs_no_choice_and_accepts_its_own(replica, changes) -> None:
    response = await replica.client.post("/v1/embeddings", json=embeddings_body(**changes))
    assert response.status_code == 200
    assert response.json()["model"] == "minilm:int4"


@pytest.mark.parametrize(
    "changes", [{"model": "sentiment"}, {"model": "minilm:fp32"}, {"variant": "fp32"}]
)
async def test_the_direct_path_refuses_another_choice(replica, changes) -> None:
    response = await replica.client.post("/v1/embeddings", json=embeddings_body(**changes))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "conflicting_choice"
