"""What a configuration will load, how large it is, and whether it fits."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from serving.app import plan as module
from serving.app.plan import (
    GATEWAY_BYTES,
    SERVICE_BYTES,
    Plan,
    longest_request_s,
    make_plan,
    serving_bytes,
)
from serving.config import DEFAULT_MAX_TOKENS, ModelConfig, ServerConfig, VariantConfig
from serving.errors import ConfigError, SourceError
from serving.seams import Checkpoint
from serving.settings import load_config
from tests.unit.app.planning import FOLDED, TWO, plan_of, refusal
from tests.unit.conftest import WriteConfig
from tests.unit.paper import Paper

pytestmark = pytest.mark.usefixtures("paper")

NUMBERS = 60
"""Numbers in the weights of ``checkpoint_folder``."""


MEBIBYTE = 1024**2
REPLICA_BYTES = NUMBERS + 10 * MEBIBYTE + 2 * MEBIBYTE
PREPARING_BYTES = 20 * MEBIBYTE
PRELOADED_BYTES = 3 * MEBIBYTE
"""As ``paper`` estimates them: weights, process and extra of a replica, preparing, and what
replicas share."""


def test_every_variant_is_planned_in_order(
    write_config: WriteConfig, checkpoint_folder: Path
) -> None:
    folded, twice = plan_of(write_config(TWO)).variants
    assert (folded.model.name, folded.variant.name) == ("tiny", "folded")
    assert (twice.model.name, twice.variant.name) == ("tiny", "twice")
    assert {folded.device, twice.device} == {"cpu"}
    for planned, folds in ((folded, 1), (twice, 2)):
        asked = planned.artifact
        assert asked.name == f"tiny:{planned.variant.name}"
        assert asked.checkpoint == Checkpoint(checkpoint_folder)
        assert (asked.task, asked.recipe, asked.runtime) == ("embeddings", "folded", "paper")
        assert asked.options == {"folds": folds}
        assert (asked.wanted_device, asked.device) == ("auto", "cpu")
        assert asked.calibration is None
        assert asked.preparing_bytes == PREPARING_BYTES


def test_memory_is_planned_for_every_gateway(write_config: WriteConfig) -> None:
    variants = "[{name: folded, runtime: paper}]"
    one = plan_of(write_config(variants))
    three = plan_of(write_config(variants, more="server: {gateways: 3}"))
    assert three.gateways == 3
    assert three.needed_bytes - one.needed_bytes == 2 * GATEWAY_BYTES
    assert serving_bytes(three.variants, three.gateways) == three.needed_bytes


@pytest.mark.parametrize(
    ("scaling", "replicas"), [("replicas: 3", 3), ("autoscaling: {min: 1, max: 4}", 4)]
)
def test_memory_is_planned_for_every_replica_there_may_be(
    write_config: WriteConfig, scaling: str, replicas: int
) -> None:
    plan = plan_of(write_config(f"[{{name: folded, runtime: paper, {scaling}}}]"))
    [planned] = plan.variants
    assert planned.weights_bytes == NUMBERS
    assert planned.replica_bytes == REPLICA_BYTES
    assert planned.resident_bytes == replicas * (REPLICA_BYTES - PRELOADED_BYTES)
    assert plan.needed_bytes == SERVICE_BYTES + PRELOADED_BYTES + planned.resident_bytes


def test_what_all_replicas_of_a_runtime_share_counts_once(write_config: WriteConfig) -> None:
    plan = plan_of(write_config(TWO))
    assert len(plan.variants) == 2
    each = REPLICA_BYTES - PRELOADED_BYTES
    assert plan.needed_bytes == SERVICE_BYTES + PRELOADED_BYTES + 2 * each


def test_preparing_is_planned_where_it_takes_more_than_serving(
    write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SERVICE_BYTES", 0)
    assert plan_of(write_config(f"[{FOLDED}]")).needed_bytes == PREPARING_BYTES


def test_a_variant_may_have_a_source_of_its_own(
    write_config: WriteConfig, checkpoint_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert", "hidden_size": 4}')
    save_file({"a": np.zeros(7, np.float32)}, other / "model.safetensors")
    variant = f"{{name: published, recipe: folded, runtime: paper, source: {other}}}"
    folded, published = plan_of(write_config(f"[{FOLDED}, {variant}]")).variants
    assert folded.artifact.checkpoint.folder == checkpoint_folder
    assert published.artifact.checkpoint.folder == other
    assert (folded.weights_bytes, published.weights_bytes) == (NUMBERS, 7)


LAYERS, ROWS, POSITIONS = 2, 6, 50
"""Of ``language_model``: layers, numbers of a key in each, and positions."""

KV_NUMBER_BYTES = 2
GENERATOR = "name: fp32, runtime: paper"


@pytest.fixture
def language_model(checkpoint_folder: Path, paper: Paper) -> None:
    """Makes ``checkpoint_folder`` one that generates, in the names of its files."""
    (checkpoint_folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "max_position_embeddings": POSITIONS})
    )
    tensors = {
        f"model.layers.{layer}.self_attn.{name}.{part}": np.zeros(shape, np.float32)
        for layer in range(LAYERS)
        for name, rows in {"q_proj": 12, "k_proj": ROWS, "v_proj": ROWS, "o_proj": 12}.items()
        for part, shape in {"weight": (rows, 12), "bias": (rows,)}.items()
    }
    save_file(tensors, checkpoint_folder / "model.safetensors")


@pytest.mark.usefixtures("language_model")
@pytest.mark.parametrize(
    ("keys", "max_tokens", "sequences", "tokens"),
    [
        ("", None, 8, POSITIONS),
        (", max_running_requests: 3", 20, 3, 20),
        (", max_running_requests: 3, replicas: 2", 4_000, 3, POSITIONS),
    ],
)
def test_a_generator_s_cache_is_planned_for_all_that_may_run(
    write_config: WriteConfig, keys: str, max_tokens: int | None, sequences: int, tokens: int
) -> None:
    file = write_config(f"[{{{GENERATOR}{keys}}}]", "generation")
    if max_tokens is not None:
        file.write_text(
            file.read_text().replace("name: tiny", f"name: tiny, max_tokens: {max_tokens}")
        )
    [planned] = plan_of(file).variants
    cache = sequences * tokens * 2 * LAYERS * ROWS * KV_NUMBER_BYTES
    assert planned.kv_cache_bytes == cache
    assert planned.replica_bytes == planned.weights_bytes + cache + 12 * MEBIBYTE
    each = planned.replica_bytes - PRELOADED_BYTES
    assert planned.resident_bytes == planned.replicas * each


@pytest.mark.usefixtures("language_model")
def test_without_a_limit_a_cache_is_planned_for_the_default(
    write_config: WriteConfig, checkpoint_folder: Path
) -> None:
    (checkpoint_folder / "config.json").write_text("{}")
    [planned] = plan_of(write_config(f"[{{{GENERATOR}}}]", "generation")).variants
    per_token = 2 * LAYERS * ROWS * KV_NUMBER_BYTES
    assert planned.kv_cache_bytes == 8 * DEFAULT_MAX_TOKENS * per_token


@pytest.mark.usefixtures("language_model")
def test_a_cache_of_unknown_size_is_not_taken_for_none(
    write_config: WriteConfig, checkpoint_folder: Path
) -> None:
    config = {"num_hidden_layers": LAYERS, "num_attention_heads": 4}
    (checkpoint_folder / "config.json").write_text(json.dumps(config))
    [planned] = plan_of(write_config(f"[{{{GENERATOR}}}]", "generation")).variants
    assert not planned.is_cache_known


@pytest.mark.usefixtures("language_model")
def test_an_encoder_has_no_cache(write_config: WriteConfig) -> None:
    assert [planned.kv_cache_bytes for planned in plan_of(write_config(TWO)).variants] == [0, 0]


@pytest.mark.parametrize(
    ("task", "key", "owners"),
    [
        ("embeddings", "max_running_requests", "generators"),
        ("classification", "max_running_requests", "generators"),
        ("rerank", "max_running_requests", "generators"),
        ("generation", "max_batch_tokens", "encoders"),
    ],
)
def test_a_key_of_the_other_kind_of_engine_is_refused(
    write_config: WriteConfig, task: str, key: str, owners: str
) -> None:
    said = refusal(write_config(f"[fp32, {{name: bf16, {key}: 8}}]", task))
    assert said.startswith(f"models[0].variants[1].{key}: a key of {owners}; 'tiny' serves {task}")


@pytest.mark.parametrize(
    ("variants", "task", "message"),
    [
        ("[fp32]", "poetry", "models[0].task: unknown task 'poetry'; known: embeddings, "),
        (
            "[fp32, int2]",
            "embeddings",
            "models[0].variants[1].recipe: unknown recipe 'int2'; known",
        ),
        (
            "[{name: mine, recipe: int2}]",
            "embeddings",
            "models[0].variants[0].recipe: unknown recipe 'int2'; known: fp32, bf16, fp8, "
            "int8-dynamic",
        ),
        (
            "[{name: fp32, runtime: pen}]",
            "embeddings",
            "models[0].variants[0].runtime: unknown runtime 'pen'; known: torch, openvino, ",
        ),
        (
            "[{name: fp32, options: {speed: 1}}]",
            "embeddings",
            "models[0].variants[0].options.speed: unknown key",
        ),
        (
            "[{name: int4, options: {group_size: 48}}]",
            "embeddings",
            "models[0].variants[0].options.group_size: Input should be 32, 64 or 128",
        ),
        (
            "[{name: fp32, calibration: {count: 10}}]",
            "embeddings",
            "models[0].variants[0].calibration: recipe 'fp32' measures no activations with "
            "these options. Remove it",
        ),
        (
            "[{name: folded, runtime: paper, device: cuda}]",
            "embeddings",
            "models[0].variants[0].device: device is cuda, but the runtime has cpu only",
        ),
    ],
)
def test_a_name_or_option_that_is_unknown_names_its_key(
    write_config: WriteConfig, variants: str, task: str, message: str
) -> None:
    assert refusal(write_config(variants, task)).startswith(message)


def test_somebody_else_s_entries_are_among_the_known_ones(write_config: WriteConfig) -> None:
    assert refusal(write_config("[int2]")).endswith(", folded, measured")


def test_what_a_runtime_cannot_do_is_refused_with_what_is_possible(
    write_config: WriteConfig,
) -> None:
    said = refusal(write_config(f"[{FOLDED}, {{name: bf16, runtime: paper}}]"))
    assert said.startswith(
        "models[0].variants[1]: recipe 'bf16' on runtime 'paper': paper can only be folded. "
        "recipe 'bf16' works on: torch"
    )
    assert said.endswith("; runtime 'paper' can: fp32, folded, measured")


def test_a_runtime_without_encoders_says_so(write_config: WriteConfig) -> None:
    said = refusal(write_config("[{name: q4_0, runtime: llama.cpp}]"))
    assert said == (
        "models[0].variants[0]: recipe 'q4_0' on runtime 'llama.cpp': no encoders in q4_0. "
        "runtime 'llama.cpp' serves generators only"
    )


def test_a_recipe_for_encoders_is_refused_where_text_is_generated(
    write_config: WriteConfig,
) -> None:
    said = refusal(write_config(f"[{FOLDED}]", "generation"))
    assert "models[0].variants[0]: recipe 'folded' on runtime 'paper': " in said
    assert "no generators in folded" in said


def test_a_checkpoint_that_a_runtime_cannot_convert_is_refused(
    write_config: WriteConfig, checkpoint_folder: Path
) -> None:
    (checkpoint_folder / "config.json").write_text('{"model_type": "stone"}')
    assert "model_type 'stone' does not fold" in refusal(write_config(f"[{FOLDED}]"))


@pytest.mark.parametrize(
    ("device", "cluster_has_cuda", "expected"),
    [("auto", True, "cpu"), ("auto", False, "cpu"), ("cpu", True, "cpu")],
)
def test_a_cluster_s_devices_count_where_replicas_run_on_its_nodes(
    write_config: WriteConfig, device: str, cluster_has_cuda: bool, expected: str
) -> None:
    config = write_config(f"[{{name: folded, runtime: paper, device: {device}}}]")
    [planned] = make_plan(load_config(config), cluster_has_cuda).variants
    assert planned.device == expected
    assert planned.artifact.wanted_device == device


def test_a_device_that_a_runtime_lacks_is_refused_for_a_cluster_too(
    write_config: WriteConfig,
) -> None:
    config = load_config(write_config("[{name: folded, runtime: paper, device: cuda}]"))
    with pytest.raises(ConfigError, match="no cuda on paper"):
        make_plan(config, cluster_has_cuda=True)


def test_a_missing_source_is_refused(write_config: WriteConfig, checkpoint_folder: Path) -> None:
    (checkpoint_folder / "model.safetensors").unlink()
    with pytest.raises(SourceError, match="model 'tiny'"):
        plan_of(write_config(TWO))


def test_a_plan_that_fits_is_let_through(
    write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: SERVICE_BYTES + 3 * REPLICA_BYTES)
    plan = plan_of(write_config(TWO))
    assert plan.fits
    plan.require_fit()


def test_a_plan_fits_to_the_byte(write_config: WriteConfig) -> None:
    plan = plan_of(write_config(TWO))
    assert Plan(plan.variants, plan.needed_bytes, plan.needed_bytes).fits
    assert not Plan(plan.variants, plan.needed_bytes, plan.needed_bytes - 1).fits


def test_a_plan_that_does_not_fit_names_its_largest_part(
    write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: 1024**3)
    two = "{name: twice, recipe: folded, runtime: paper, replicas: 2}"
    plan = plan_of(write_config(f"[{FOLDED}, {two}]"))
    assert not plan.fits
    expected = r"needs about 1\.2 GiB, 1\.0 GiB are available; the largest is tiny:twice"
    with pytest.raises(ConfigError, match=expected):
        plan.require_fit()


def test_a_generation_may_take_longer_than_other_requests() -> None:
    server = ServerConfig(request_timeout_s=20, generation_timeout_s=90)
    fp32 = (VariantConfig(name="fp32"),)
    encoder = ModelConfig(name="a", task="embeddings", source="x", variants=fp32)
    generator = ModelConfig(name="b", task="generation", source="x", variants=fp32)
    assert longest_request_s([encoder], server) == 20
    assert longest_request_s([encoder, generator], server) == 90
