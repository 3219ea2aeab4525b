"""A plan with adapters: which variant is made with which, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.app.plan import Plan, make_plan
from serving.artifacts import ArtifactStore, key_of
from serving.cli.check import adapted
from serving.errors import ConfigError
from serving.lora_adapter import adapter_files
from serving.routes.catalog import served_model
from serving.settings import load_config
from tests.unit.adapters.tiny import ADAPTERS, BASES

ADAPTER = str(ADAPTERS / "llama-every-layer")


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a configuration of the tiny Llama, and makes its plan."""

    def plan(*variants: Any, **of_model: Any) -> Plan:
        model = {
            "name": "llama",
            "task": "generation",
            "source": str(BASES / "llama"),
            "variants": list(variants),
            **of_model,
        }
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump({"models": [model]}))
        return make_plan(load_config(file))

    return plan


def refusal(write: Any, *variants: Any, **of_model: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        write(*variants, **of_model)
    return str(caught.value)


def test_a_variant_is_made_with_its_own_adapter_or_the_models(write: Any) -> None:
    other = str(ADAPTERS / "llama-patterns")
    plan = write("fp32", {"name": "own", "recipe": "fp32", "adapter": other}, adapter=ADAPTER)
    found = [planned.artifact.adapter for planned in plan.variants]
    assert [one and (str(one.folder), one.place) for one in found] == [
        (ADAPTER, "merged"),
        (other, "merged"),
    ]


def test_the_adapter_is_named_by_check_and_by_the_list_of_models(write: Any) -> None:
    beside = {"source": ADAPTER, "place": "beside"}
    plan = write("fp32", {"name": "tuned", "recipe": "int4", "adapter": beside})
    plain, tuned = plan.variants
    assert adapted(plain) == ""
    assert adapted(tuned) == f", adapter {ADAPTER} beside"
    forms = served_model(tuned.model).variants
    assert (forms["fp32"].adapter, forms["tuned"].adapter) == (None, ADAPTER)


def test_an_adapters_digest_and_place_are_part_of_an_artifacts_key(
    write: Any, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(ADAPTER, tmp_path / "copy"))
    store = ArtifactStore(tmp_path / "store")
    int4 = {"recipe": "int4"}
    plan = write(
        {"name": "plain", **int4},
        {"name": "merged", **int4, "adapter": ADAPTER},
        {"name": "copied", **int4, "adapter": str(copy)},
        {"name": "beside", **int4, "adapter": {"source": ADAPTER, "place": "beside"}},
    )
    plain, merged, copied, beside = (key_of(one.artifact, store) for one in plan.variants)
    assert merged.id == copied.id
    assert len({plain.id, merged.id, beside.id}) == 3
    settings = adapter_files(copy)[0]
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "lora_alpha": 17}))
    assert key_of(plan.variants[2].artifact, store).id != copied.id


def test_factors_beside_the_weights_are_counted(write: Any) -> None:
    beside = {"source": ADAPTER, "place": "beside"}
    plan = write(
        {"name": "plain", "recipe": "int4"},
        {"name": "merged", "recipe": "int4", "adapter": ADAPTER},
        {"name": "beside", "recipe": "int4", "adapter": beside},
    )
    plain, merged, apart = plan.variants
    # Of two layers: q and o, k and v, gate and up, down; rank 8, two bytes.
    sizes = 2 * (2 * (64 + 64) + 2 * (64 + 32) + 2 * (64 + 128) + (128 + 64))
    assert merged.weights_bytes == plain.weights_bytes
    assert apart.weights_bytes - plain.weights_bytes == 2 * 8 * sizes
    assert apart.replica_bytes - plain.replica_bytes == 2 * 8 * sizes


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ({"recipe": "stored", "runtime": "llama.cpp"}, "stored keeps the checkpoint's own numbers"),
        (
            {"recipe": "int8-dynamic", "adapter": {"source": ADAPTER, "place": "beside"}},
            "on torch, an adapter stays beside int4",
        ),
        (
            {
                "recipe": "int4",
                "runtime": "openvino",
                "adapter": {"source": ADAPTER, "place": "beside"},
            },
            "adapters on openvino are merged",
        ),
    ],
    ids=["stored", "beside int8", "beside on openvino"],
)
def test_where_an_adapter_cannot_be_is_refused(
    write: Any, variant: dict[str, Any], said: str
) -> None:
    assert said in refusal(write, "fp32", {"name": "tuned", "adapter": ADAPTER, **variant})


def test_an_adapter_for_another_model_is_refused_under_its_key(write: Any) -> None:
    bert = str(ADAPTERS / "bert-body")
    said = refusal(write, "fp32", {"name": "tuned", "recipe": "fp32", "adapter": bert})
    assert "models[0].variants[1].adapter: " in said
    assert "was made for another model" in said
    assert "models[0].adapter: " in refusal(write, "fp32", adapter=bert)


def test_an_adapter_that_is_missing_is_refused(write: Any, tmp_path: Path) -> None:
    assert f"no adapter_config.json in {tmp_path}" in refusal(write, "fp32", adapter=str(tmp_path))


def test_a_place_that_there_is_not_is_refused(write: Any) -> None:
    assert "place" in refusal(write, "fp32", adapter={"source": ADAPTER, "place": "above"})
