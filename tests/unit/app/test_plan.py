"""What a configuration will load, how large it is, and whether it fits."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from serving.app import plan as module
from serving.app.plan import (
    PROCESS_BYTES,
    SERVICE_BYTES,
    Plan,
    available_bytes,
    longest_request_s,
    make_plan,
)
from serving.config import DEFAULT_MAX_TOKENS, ModelConfig, ServerConfig
from serving.errors import ConfigError, SourceError
from serving.runtimes import get_variant
from serving.seams import Checkpoint
from serving.settings import load_config
from tests.unit.conftest import WriteConfig

NUMBERS = 60
"""Numbers in the weights of ``checkpoint_folder``."""


def plan_of(config: Path) -> Plan:
    return make_plan(load_config(config))


def test_every_variant_is_planned_in_order(
    write_config: WriteConfig, checkpoint_folder: Path
) -> None:
    variants = plan_of(write_config("[bf16, fp32]")).variants
    names = [(planned.model.name, planned.variant.name) for planned in variants]
    assert names == [
        ("tiny", "bf16"),
        ("tiny", "fp32"),
    ]
    assert {planned.checkpoint for planned in variants} == {Checkpoint(checkpoint_folder)}


def test_weights_are_estimated_from_their_shapes(write_config: WriteConfig) -> None:
    fp32, bf16 = (planned.weights_bytes for planned in plan_of(write_config()).variants)
    assert fp32 == 4 * NUMBERS
    assert 2 * NUMBERS <= bf16 < fp32


@pytest.mark.parametrize(
    ("scaling", "replicas"), [("replicas: 3", 3), ("autoscaling: {min: 1, max: 4}", 4)]
)
def test_memory_is_planned_for_every_replica_there_may_be(
    write_config: WriteConfig, scaling: str, replicas: int
) -> None:
    plan = plan_of(write_config(f"[{{name: fp32, {scaling}}}]"))
    [planned] = plan.variants
    assert planned.weights_bytes == 4 * NUMBERS
    assert planned.resident_bytes == replicas * (4 * NUMBERS + PROCESS_BYTES)
    assert plan.needed_bytes == SERVICE_BYTES + planned.resident_bytes


LAYERS, ROWS, POSITIONS = 2, 6, 50
"""Of ``language_model``: layers, numbers of a key in each, and positions."""


@pytest.fixture
def language_model(checkpoint_folder: Path) -> None:
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
    ("variant", "max_tokens", "sequences", "tokens"),
    [
        ("fp32", None, 8, POSITIONS),
        ("{name: fp32, max_running_requests: 3}", 20, 3, 20),
        ("{name: fp32, max_running_requests: 3, replicas: 2}", 4_000, 3, POSITIONS),
    ],
)
def test_a_generator_s_cache_is_planned_for_all_that_may_run(
    write_config: WriteConfig,
    variant: str,
    max_tokens: int | None,
    sequences: int,
    tokens: int,
) -> None:
    file = write_config(f"[{variant}]", "generation")
    if max_tokens is not None:
        file.write_text(
            file.read_text().replace("name: tiny", f"name: tiny, max_tokens: {max_tokens}")
        )
    [planned] = plan_of(file).variants
    bytes_per_number = get_variant("fp32").kv_cache_bytes_per_number
    cache = sequences * tokens * 2 * LAYERS * ROWS * bytes_per_number
    assert planned.kv_cache_bytes == cache
    replica = planned.weights_bytes + cache + PROCESS_BYTES
    assert planned.resident_bytes == planned.replicas * replica


@pytest.mark.usefixtures("language_model")
def test_without_a_limit_a_cache_is_planned_for_the_default(
    write_config: WriteConfig, checkpoint_folder: Path
) -> None:
    (checkpoint_folder / "config.json").write_text("{}")
    [planned] = plan_of(write_config("[fp32]", "generation")).variants
    per_token = 2 * LAYERS * ROWS * get_variant("fp32").kv_cache_bytes_per_number
    assert planned.kv_cache_bytes == 8 * DEFAULT_MAX_TOKENS * per_token


@pytest.mark.usefixtures("language_model")
def test_an_encoder_has_no_cache(write_config: WriteConfig) -> None:
    assert [planned.kv_cache_bytes for planned in plan_of(write_config()).variants] == [0, 0]


@pytest.mark.parametrize(
    ("task", "key", "owners"),
    [
        ("embeddings", "max_running_requests", "generators"),
        ("classification", "max_running_requests", "generators"),
        ("generation", "max_batch_tokens", "encoders"),
    ],
)
def test_a_key_of_the_other_kind_of_engine_is_refused(
    write_config: WriteConfig, task: str, key: str, owners: str
) -> None:
    message = rf"models\[0\]\.variants\[1\]\.{key}: a key of {owners}; 'tiny' serves {task}"
    with pytest.raises(ConfigError, match=message):
        plan_of(write_config(f"[fp32, {{name: bf16, {key}: 8}}]", task))


def test_a_quantized_variant_is_planned_with_the_copy_that_it_starts_from(
    write_config: WriteConfig,
) -> None:
    plan = plan_of(write_config("[{name: bf16, replicas: 2}]"))
    [planned] = plan.variants
    assert planned.loading_bytes == 2 * 4 * NUMBERS
    assert plan.needed_bytes == SERVICE_BYTES + planned.resident_bytes + planned.loading_bytes


@pytest.mark.parametrize(
    ("variants", "task", "message"),
    [
        ("[fp32]", "poetry", r"models\[0\]\.task: unknown task 'poetry'; known: embeddings, "),
        ("[fp32, int2]", "embeddings", r"models\[0\]\.variants\[1\]\.name: unknown variant 'int2'"),
        (
            "[{name: fp32, options: {speed: 1}}]",
            "embeddings",
            r"models\[0\]\.variants\[0\]\.options\.speed: unknown key",
        ),
    ],
)
def test_a_name_or_option_that_is_unknown_names_its_key(
    write_config: WriteConfig, variants: str, task: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(write_config(variants, task))


def test_an_unknown_variant_is_told_with_the_known_ones(write_config: WriteConfig) -> None:
    with pytest.raises(ConfigError, match="known: fp32, bf16, int8-dynamic, int4"):
        plan_of(write_config("[int2]"))


def test_a_missing_source_is_refused(write_config: WriteConfig, checkpoint_folder: Path) -> None:
    (checkpoint_folder / "model.safetensors").unlink()
    with pytest.raises(SourceError, match="model 'tiny'"):
        plan_of(write_config())


def with_quality(file: Path, quality: str) -> Path:
    file.write_text(file.read_text().replace("name: tiny", f"name: tiny, quality: {quality}"))
    return file


@pytest.mark.parametrize(
    ("task", "key", "content", "said"),
    [
        ("embeddings", "probes", '{"input": "a"}', r"lines\.jsonl: 1 probes; at least 11"),
        ("embeddings", "dataset", '{"input": "a"}', "a model that embeds has no labels"),
        ("classification", "dataset", '{"input": "a"}', r"lines\.jsonl: no labels"),
        ("generation", "dataset", '{"input": "a"}', "line 1: prompt: Field required"),
        ("generation", "dataset", None, r"lines\.jsonl: cannot be read"),
    ],
)
def test_a_wrong_file_to_judge_variants_by_names_its_key(
    write_config: WriteConfig, tmp_path: Path, task: str, key: str, content: str | None, said: str
) -> None:
    data = tmp_path / "lines.jsonl"
    if content is not None:
        data.write_text(content)
    config = with_quality(write_config("[fp32]", task), f"{{{key}: {data}}}")
    with pytest.raises(ConfigError, match=rf"models\[0\]\.quality\.{key}: .*{said}"):
        plan_of(config)


def test_good_files_to_judge_variants_by_are_let_through(
    write_config: WriteConfig, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "probes.jsonl").write_text('{"input": "a"}\n' * 11)
    (tmp_path / "data.jsonl").write_text('{"input": "a", "label": "b"}')
    quality = "{probes: ~/probes.jsonl, dataset: ~/data.jsonl}"
    assert plan_of(with_quality(write_config("[fp32]", "classification"), quality)).variants


def test_a_plan_that_fits_is_let_through(write_config: WriteConfig, monkeypatch) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: SERVICE_BYTES + 10 * PROCESS_BYTES)
    plan = plan_of(write_config())
    assert plan.fits
    plan.require_fit()


def test_a_plan_fits_to_the_byte(write_config: WriteConfig) -> None:
    plan = plan_of(write_config())
    assert Plan(plan.variants, plan.needed_bytes, plan.needed_bytes).fits
    assert not Plan(plan.variants, plan.needed_bytes, plan.needed_bytes - 1).fits


def test_a_plan_that_does_not_fit_names_its_largest_part(
    write_config: WriteConfig, monkeypatch
) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: 1024**3)
    plan = plan_of(write_config("[fp32, {name: bf16, replicas: 2}]"))
    assert not plan.fits
    expected = r"needs about 2\.6 GiB, 1\.0 GiB are available; the largest is tiny:bf16"
    with pytest.raises(ConfigError, match=expected):
        plan.require_fit()


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [("max", "5", 1000), ("600", "200", 450), ("5000", "200", 1000), (None, None, 1000)],
)
def test_a_container_s_limit_counts_where_it_is_smaller(
    monkeypatch, limit: str | None, used: str | None, expected: int
) -> None:
    statistics = "anon 120\nfile 80\ninactive_file 50"
    files = {"memory.max": limit, "memory.current": used, "memory.stat": statistics}

    def read_text(self: Path) -> str:
        content = files[self.name]
        if content is None:
            raise FileNotFoundError(self)
        return f"{content}\n"

    class Machine:
        available = 1000

    monkeypatch.setattr(module.psutil, "virtual_memory", Machine)
    monkeypatch.setattr(module.Path, "read_text", read_text)
    assert available_bytes() == expected


def test_a_generation_may_take_longer_than_other_requests() -> None:
    server = ServerConfig(request_timeout_s=20, generation_timeout_s=90)
    encoder = ModelConfig(name="a", task="embeddings", source="x", variants=("fp32",))
    generator = ModelConfig(name="b", task="generation", source="x", variants=("fp32",))
    assert longest_request_s([encoder], server) == 20
    assert longest_request_s([encoder, generator], server) == 90
