"""The rules of the configuration, and that each error names its key."""

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from serving.config import (
    RESERVED_MODEL_NAMES,
    RESERVED_VARIANT_NAMES,
    Autoscaling,
    Config,
    DraftConfig,
    ModelConfig,
    ServerConfig,
    VariantConfig,
)
from serving.settings import explain


def model(**changes: Any) -> dict[str, Any]:
    plain = {"name": "minilm", "task": "embeddings", "source": "/m", "variants": ["fp32", "int4"]}
    return {**plain, **changes}


def problems(document: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(document)
    return explain(caught.value)


def test_a_variant_s_name_is_its_recipe_unless_it_names_one() -> None:
    bare, named = ModelConfig(
        **model(
            variants=["fp32", {"name": "int8-ov", "recipe": "int8-static", "runtime": "openvino"}]
        )
    ).variants
    assert (bare.name, bare.recipe, bare.runtime) == ("fp32", "fp32", "torch")
    assert (named.name, named.recipe, named.runtime) == ("int8-ov", "int8-static", "openvino")


def test_one_recipe_may_be_served_twice() -> None:
    options = [
        {"name": f"int4-g{size}", "recipe": "int4", "options": {"group_size": size}}
        for size in (32, 128)
    ]
    names = [variant.name for variant in ModelConfig(**model(variants=options)).variants]
    assert names == ["int4-g32", "int4-g128"]


@pytest.mark.parametrize("name", ["Int8", "int8 ov", "a--b", "a/b", "a:b", "x" * 65])
def test_variant_names_that_would_break_paths_are_refused(name: str) -> None:
    assert problems({"models": [model(variants=["fp32", name])]}).startswith(
        "models[0].variants[1].name: "
    )


def test_a_bare_variant_name_stands_for_all_defaults() -> None:
    assert ModelConfig(**model()).variants == (
        VariantConfig(name="fp32"),
        VariantConfig(name="int4"),
    )


@pytest.mark.parametrize(
    ("variants", "default", "reference"),
    [
        (["int4", "fp32"], "int4", "fp32"),
        (["int4", "bf16"], "int4", "int4"),
        ([{"name": "bf16"}, {"name": "fp32"}], "bf16", "fp32"),
        ((VariantConfig(name="bf16"), VariantConfig(name="fp32")), "bf16", "fp32"),
    ],
)
def test_default_variant_and_reference_are_filled_in(
    variants: Sequence[Any], default: str, reference: str
) -> None:
    filled = ModelConfig(**model(variants=variants))
    assert (filled.default_variant, filled.reference) == (default, reference)


def test_given_default_variant_and_reference_are_kept() -> None:
    given = ModelConfig(**model(default_variant="int4", reference="int4"))
    assert (given.default_variant, given.reference) == ("int4", "int4")


def test_the_default_variant_may_be_auto() -> None:
    assert ModelConfig(**model(default_variant="auto")).default_variant == "auto"


@pytest.mark.parametrize("policy", ["", "lenient", "strict\n"])
def test_there_are_two_policies(policy: str) -> None:
    for known in ("best_effort", "strict"):
        assert ModelConfig(**model(slo_policy=known)).slo_policy == known
    assert problems({"models": [model(slo_policy=policy)]}).startswith("models[0].slo_policy: ")


def test_the_server_binds_to_loopback_without_being_asked() -> None:
    assert Config(models=(ModelConfig(**model()),)).server.host == "127.0.0.1"


def test_a_config_cannot_be_changed() -> None:
    config = Config.model_validate({"models": [model()]})
    with pytest.raises(ValidationError):
        config.server.port = 1


def test_the_api_key_does_not_show_in_a_print() -> None:
    config = Config.model_validate({"models": [model()], "server": {"api_key": "hush"}})
    assert "hush" not in repr(config)


@pytest.mark.parametrize("name", ["minilm", "all-minilm-l6-v2", "qwen2.5_7b", "a", "0", "x" * 64])
def test_good_model_names_are_accepted(name: str) -> None:
    assert ModelConfig(**model(name=name)).name == name


@pytest.mark.parametrize(
    "name", ["", "MiniLM", "a--b", "a/b", "a:b", "-a", "a-", "a b", "a\n", "é", "x" * 65]
)
def test_model_names_that_would_break_paths_are_refused(name: str) -> None:
    assert problems({"models": [model(name=name)]}).startswith("models[0].name: ")


@pytest.mark.parametrize("name", sorted(RESERVED_MODEL_NAMES))
def test_model_names_that_are_paths_of_the_service_are_refused(name: str) -> None:
    assert problems({"models": [model(name=name)]}).startswith("models[0].name: ")


def test_the_routes_of_the_gateway_are_reserved() -> None:
    paths = {"v1", "v2", "metrics", "health", "healthz", "docs", "openapi.json"}
    assert paths | {"tokenize", "detokenize"} <= RESERVED_MODEL_NAMES


@pytest.mark.parametrize(
    "origin", ["*", "https://example.org", "http://localhost:3000", "chrome-extension://abc"]
)
def test_origins_as_browsers_send_them_are_accepted(origin: str) -> None:
    server = {"cors_origins": [origin]}
    config = Config.model_validate({"models": [model()], "server": server})
    assert config.server.cors_origins == (origin,)


@pytest.mark.parametrize("origin", ["", "example.org", "https://example.org/", "https://a/b", "**"])
def test_what_no_browser_sends_as_origin_is_refused(origin: str) -> None:
    """It would never match, and nobody would be told."""
    expected = "server.cors_origins[0]: String should match pattern"
    assert expected in problems({"models": [model()], "server": {"cors_origins": [origin]}})


@pytest.mark.parametrize("name", sorted(RESERVED_VARIANT_NAMES | {"auto"}))
def test_reserved_variant_names_are_refused(name: str) -> None:
    expected = f"models[0].variants[1].name: {name!r} is reserved"
    assert expected in problems({"models": [model(variants=["fp32", name])]}).splitlines()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sauce": "x"}, "models[0].sauce: unknown key"),
        ({"source": ""}, "models[0].source: String should have at least 1 character"),
        ({"variants": []}, "models[0].variants: Tuple should have at least 1 item"),
        ({"variants": "fp32"}, "models[0].variants: Input should be a valid tuple"),
        ({"variants": ["int4", "fp32", "int4"]}, "models[0]: variants given twice: int4"),
        (
            {"default_variant": "bf16"},
            "models[0]: default_variant 'bf16' is not one of the variants: fp32, int4",
        ),
        (
            {"reference": "auto"},
            "models[0]: reference 'auto' is not one of the variants: fp32, int4",
        ),
        ({"max_tokens": 7}, "models[0].max_tokens: Input should be greater than or equal to 8"),
        ({"trust_remote_code": "?"}, "models[0].trust_remote_code: Input should be a valid bool"),
    ],
)
def test_a_wrong_model_names_its_key(changes: dict[str, Any], expected: str) -> None:
    assert problems({"models": [model(**changes)]}).startswith(expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"colour": "red"}, ".colour: unknown key"),
        ({"device": "tpu"}, ".device: String should match pattern '^(auto|cpu|cuda)$'"),
        ({"device": "cpu\n"}, ".device: String should match pattern"),
        ({"threads": 0}, ".threads: Input should be greater than or equal to 1"),
        ({"threads": 257}, ".threads: Input should be less than or equal to 256"),
        ({"cores": "mine", "threads": 1}, ".cores: String should match pattern"),
        ({"cores": "exclusive"}, ": cores: exclusive needs threads"),
        ({"replicas": 0}, ".replicas: Input should be greater than or equal to 1"),
        ({"replicas": 65}, ".replicas: Input should be less than or equal to 64"),
        ({"max_batch_tokens": 0}, ".max_batch_tokens: Input should be greater than or equal to 1"),
        ({"max_running_requests": 0}, ".max_running_requests: Input should be greater than"),
        ({"max_running_requests": 257}, ".max_running_requests: Input should be less than"),
        ({"max_queued_requests": 0}, ".max_queued_requests: Input should be greater than"),
        ({"max_queued_requests": 65537}, ".max_queued_requests: Input should be less than"),
        ({"options": [1]}, ".options: Input should be a valid dictionary"),
        ({"source": ""}, ".source: String should have at least 1 character"),
        ({"calibration": {"count": 0}}, ".calibration.count: Input should be greater than"),
        ({"calibration": {"date": "x"}}, ".calibration.date: unknown key"),
        (
            {"replicas": 2, "autoscaling": {"max": 3}},
            ": give either replicas or autoscaling, not both",
        ),
        (
            {"replicas": 1, "autoscaling": {"max": 3}},
            ": give either replicas or autoscaling, not both",
        ),
        ({"autoscaling": {}}, ".autoscaling.max: Field required"),
        ({"autoscaling": {"min": 3, "max": 2}}, ".autoscaling: max (2) is smaller than min (3)"),
        ({"autoscaling": {"min": 0, "max": 2}}, ".autoscaling.min: Input should be greater than"),
        ({"autoscaling": {"max": 65}}, ".autoscaling.max: Input should be less than or equal to"),
        ({"autoscaling": {"max": 2, "target": 0}}, ".autoscaling.target: Input should be greater"),
        ({"autoscaling": {"max": 2, "to": 1}}, ".autoscaling.to: unknown key"),
    ],
)
def test_a_wrong_variant_names_its_key(changes: dict[str, Any], expected: str) -> None:
    document = {"models": [model(variants=["fp32", {"name": "int4", **changes}])]}
    assert problems(document).startswith(f"models[0].variants[1]{expected}")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hots": "x"}, "server.hots: unknown key"),
        ({"port": 0}, "server.port: Input should be greater than or equal to 1"),
        ({"port": 65536}, "server.port: Input should be less than or equal to 65535"),
        ({"request_timeout_s": 0}, "server.request_timeout_s: Input should be greater than 0"),
        ({"request_timeout_s": 3601}, "server.request_timeout_s: Input should be less than"),
        ({"generation_timeout_s": 0}, "server.generation_timeout_s: Input should be greater than"),
        ({"generation_timeout_s": 3601}, "server.generation_timeout_s: Input should be less than"),
        ({"max_body_bytes": 1023}, "server.max_body_bytes: Input should be greater than"),
        ({"max_inputs": 0}, "server.max_inputs: Input should be greater than or equal to 1"),
        ({"max_inputs": 65537}, "server.max_inputs: Input should be less than or equal to"),
    ],
)
def test_a_wrong_server_names_its_key(changes: dict[str, Any], expected: str) -> None:
    assert problems({"models": [model()], "server": changes}).startswith(expected)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, "models: Field required"),
        ({"models": []}, "models: Tuple should have at least 1 item"),
        ({"models": [model(), model()]}, "models: models given twice: minilm"),
        ({"models": [model()], "sever": {}}, "sever: unknown key"),
        ({"models": [model()], "artifacts": {"folders": "x"}}, "artifacts.folders: unknown key"),
        ({"models": [model()], "evidence": {"file": "x"}}, "evidence.file: unknown key"),
    ],
)
def test_a_wrong_top_level_names_its_key(document: dict[str, Any], expected: str) -> None:
    assert problems(document).startswith(expected)


SEVERAL_PROBLEMS = {
    "models": [model(source="", variants=[{"name": "fp32", "threads": 0}])],
    "extra": 1,
}


def told_keys(document: dict[str, Any]) -> list[str]:
    return [line.partition(": ")[0] for line in problems(document).splitlines()]


def test_every_problem_is_told_at_once() -> None:
    expected = {"models[0].source", "models[0].variants[0].threads", "extra"}
    assert expected <= set(told_keys(SEVERAL_PROBLEMS))


def test_nothing_but_the_problems_is_told() -> None:
    expected = ["models[0].source", "models[0].variants[0].threads", "extra"]
    assert told_keys(SEVERAL_PROBLEMS) == expected


def test_a_variant_without_a_name_is_the_only_problem_told() -> None:
    document = {"models": [model(), model(name="other", variants=[{"device": "cpu"}, "fp32"])]}
    assert told_keys(document) == ["models[1].variants[0].name"]


def test_autoscaling_starts_at_one_replica() -> None:
    assert Autoscaling(max=4).min == 1


@pytest.mark.parametrize("key", ["", "  "])
def test_an_empty_key_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="lets everybody in"):
        ServerConfig(api_key=SecretStr(key))


@pytest.mark.parametrize("key", ["hush\n", " hush", "hu\x00sh", "hush\u200b"])
def test_a_key_that_no_client_could_send_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="no client could send it in a header"):
        ServerConfig(api_key=SecretStr(key))


@pytest.mark.parametrize("key", ["hush", "two words", "schlüssel", ":"])
def test_other_keys_are_taken_as_they_are(key: str) -> None:
    taken = ServerConfig(api_key=SecretStr(key)).api_key
    assert taken is not None
    assert taken.get_secret_value() == key


@pytest.mark.parametrize(
    ("place", "key", "section"),
    [
        ("models[0].variants[0].threads", "threads", "variant"),
        ("models[0].variants[0].replicas", "replicas", "variant"),
        ("models[0].variants[0].max_queued_requests", "max_queued_requests", "variant"),
        ("models[0].max_tokens", "max_tokens", "model"),
        ("server.port", "port", "server"),
        ("server.request_timeout_s", "request_timeout_s", "server"),
        ("server.host", "host", "server"),
        ("models[0].quality.shadow.rate", "rate", "shadow"),
    ],
)
@pytest.mark.parametrize("value", [True, False])
def test_yes_and_no_are_no_numbers(place: str, key: str, section: str, value: bool) -> None:
    wrong = {key: value}
    variants = [{"name": "fp32", **(wrong if section == "variant" else {})}]
    quality = {"quality": {"shadow": wrong}} if section == "shadow" else {}
    of_model = wrong if section == "model" else {}
    config = {
        "models": [model(variants=variants, **quality, **of_model)],
        "server": wrong if section == "server" else {},
    }
    assert problems(config).startswith(f"{place}: ")
    assert str(value).lower() in problems(config)


def test_what_is_yes_or_no_may_be() -> None:
    assert ModelConfig(**model(trust_remote_code=True)).trust_remote_code


@pytest.mark.parametrize("alias", ["org/Name", "name:8b", "org/name:q4_K_M", "A", "gpt-4o-mini"])
def test_aliases(alias: str) -> None:
    assert ModelConfig(**model(aliases=[alias])).aliases == (alias,)


@pytest.mark.parametrize("alias", ["", "/a", "a/", "a b", ":a", "é", "a" * 201])
def test_aliases_that_are_no_names_are_refused(alias: str) -> None:
    assert "models[0].aliases[0]" in problems({"models": [model(aliases=[alias])]})


@pytest.mark.parametrize(
    "alias", ["minilm", "other", "other:int4", "minilm:int4", "minilm:auto", "org/x", "org/x:fp32"]
)
def test_an_alias_means_one_thing(alias: str) -> None:
    models = [model(aliases=[alias]), model(name="other", aliases=["org/x"])]
    assert f"alias {alias!r} of model 'minilm' means something already" in problems(
        {"models": models}
    )


def drafted(**draft: Any) -> dict[str, Any]:
    variants = ["fp32", "q4_0", {"name": "fast", "recipe": "fp32", "draft": draft}]
    return {"models": [model(variants=variants)]}


def test_a_draft_proposes_as_many_tokens_as_measurements_say() -> None:
    section = Config.model_validate(drafted(variant="q4_0")).models[0].variants[2].draft
    assert section == DraftConfig(variant="q4_0", tokens="auto")
    section = Config.model_validate(drafted(variant="q4_0", tokens=16)).models[0].variants[2].draft
    assert section == DraftConfig(variant="q4_0", tokens=16)


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        (
            {"variant": "q8_0"},
            "models[0]: variant 'fast': draft.variant 'q8_0' is not another of the variants: "
            "fp32, q4_0",
        ),
        ({"variant": "fast"}, "draft.variant 'fast' is not another of the variants: fp32, q4_0"),
        ({"variant": "q4_0", "tokens": 0}, "models[0].variants[2].draft.tokens"),
        ({"variant": "q4_0", "tokens": 17}, "models[0].variants[2].draft.tokens"),
        ({"variant": "q4_0", "tokens": "many"}, "models[0].variants[2].draft.tokens"),
        ({"variant": "q4_0", "tokens": True}, "models[0].variants[2].draft.tokens"),
        ({"tokens": 2}, "models[0].variants[2].draft.variant"),
    ],
)
def test_a_draft_that_means_nothing_is_refused(draft: dict[str, Any], message: str) -> None:
    assert message in problems(drafted(**draft))


@pytest.mark.parametrize("tokens", [0, 17, 2.5, "many", [1]])
def test_tokens_of_a_draft_are_wrong_in_one_line(tokens: Any) -> None:
    said = problems(drafted(variant="q4_0", tokens=tokens))
    assert said == "models[0].variants[2].draft.tokens: 1 to 16, or auto"


def test_a_draft_has_no_draft() -> None:
    config = drafted(variant="q4_0")
    config["models"][0]["variants"][1] = {"name": "q4_0", "draft": {"variant": "fp32"}}
    assert "draft.variant 'q4_0' has a draft of its own" in problems(config)
