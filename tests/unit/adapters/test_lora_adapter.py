"""What an adapter changes is read from its files, and what is not read is refused by name."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from serving.checkpoint import weight_shapes
from serving.errors import SourceError
from serving.lora_adapter import find_adapter, read_changes
from serving.quantized_checkpoints import shapes_of_model
from serving.seams import Checkpoint, WeightShape
from tests.unit.adapters.tiny import ADAPTERS, BASES

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A copy of an adapter for the Llama."""
    return Path(shutil.copytree(ADAPTERS / "llama-patterns", tmp_path / "adapter"))


def set_up(adapter: Path, **settings: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def with_tensors(adapter: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def refusal(adapter: Path, base: str = "llama") -> str:
    with pytest.raises(SourceError) as caught:
        read_changes(adapter, weight_shapes(Checkpoint(BASES / base)))
    return str(caught.value)


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def test_ranks_and_scales_follow_the_patterns(adapter: Path) -> None:
    changes = read_changes(adapter, weight_shapes(Checkpoint(BASES / "llama")))
    found = {
        one.weight.removeprefix("model.layers."): (one.rank, one.scale) for one in changes.updates
    }
    assert found == {
        "0.self_attn.q_proj.weight": (8, 2),
        "1.self_attn.q_proj.weight": (8, 0.25),
        "0.self_attn.v_proj.weight": (3, 16 / 3),
        "1.self_attn.v_proj.weight": (3, 16 / 3),
        "0.self_attn.o_proj.weight": (8, 0.75),
        "1.self_attn.o_proj.weight": (8, 0.75),
        "0.mlp.down_proj.weight": (5, 3.2),
        "1.mlp.down_proj.weight": (8, 2),
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'; LORA is read"),
        ({"use_dora": True}, "use_dora is set, which is not read"),
        ({"bias": "lora_only"}, "bias is 'lora_only'; none is read"),
        ({"lora_bias": True}, "lora_bias is set, which is not read"),
        ({"target_parameters": ["experts.down"]}, "target_parameters is set, which is not read"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices is set, which is not read"),
        ({"of_a_later_version": "x"}, "of_a_later_version is set, which is not read"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4', for which"),
        (
            {"lora_alpha": "many"},
            "lora_alpha, and every value of alpha_pattern, has to be a number",
        ),
        ({"alpha_pattern": {"o_proj": None}}, "has to be a number"),
        ({"alpha_pattern": {"(a+)+$": 2}}, "alpha_pattern has the regular expression '(a+)+$'"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_change_answers_in_another_way_are_named(
    adapter: Path, settings: dict[str, Any], said: str
) -> None:
    set_up(adapter, **settings)
    assert f"{adapter / 'adapter_config.json'}: " in refusal(adapter)
    assert said in refusal(adapter)


def test_settings_that_later_versions_add_and_leave_off_are_accepted(adapter: Path) -> None:
    set_up(adapter, of_a_later_version=None, another=False)
    assert read_changes(adapter, weight_shapes(Checkpoint(BASES / "llama"))).updates


def test_an_adapter_for_another_model_names_the_tensor(adapter: Path) -> None:
    assert "changes model.layers.0.mlp.down_proj.weight, of which the base has none" in refusal(
        adapter, "bert"
    )


def test_an_adapter_for_another_size_names_both_shapes(adapter: Path) -> None:
    with_tensors(adapter, lambda t: t.update({FIRST: t[FIRST][:, :32].contiguous()}))
    said = refusal(adapter)
    assert "is for 64×32 where model.layers.0.self_attn.q_proj.weight is 64×64" in said


def flat_shapes(config: dict[str, Any]) -> list[WeightShape]:
    """The Llama's tensors as a 4-bit checkpoint of bitsandbytes has them: QLoRA begins there."""
    stored = []
    for shape in weight_shapes(Checkpoint(BASES / "llama")):
        if not shape.name.endswith("_proj.weight"):
            stored.append(shape)
            continue
        state = f"{shape.name}.quant_state.bitsandbytes__nf4"
        stored.append(WeightShape(shape.name, (math.prod(shape.shape) // 2, 1), False, "U8"))
        stored.append(WeightShape(state, (90,), False, "U8"))
    said = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    return [*shapes_of_model(stored, {**config, "quantization_config": said})]


@pytest.mark.parametrize("config", [{"hidden_size": 64}, {}], ids=["a guess", "one row"])
def test_a_base_whose_header_only_counts_numbers_is_held_against_their_count(
    adapter: Path, config: dict[str, Any]
) -> None:
    whole = ADAPTERS / "llama-every-layer"
    base = flat_shapes(config)
    assert read_changes(whole, base) == read_changes(
        whole, weight_shapes(Checkpoint(BASES / "llama"))
    )
    with_tensors(adapter, lambda t: t.update({FIRST: t[FIRST][:, :32].contiguous()}))
    with pytest.raises(SourceError, match=r"is for 64×32 where .*q_proj\.weight is (1×4096|64×64)"):
        read_changes(adapter, base)


def test_a_factor_that_is_missing_is_named(adapter: Path) -> None:
    with_tensors(adapter, lambda tensors: tensors.pop(FIRST))
    assert f"no {FIRST} beside its other factor" in refusal(adapter)


def test_factors_that_do_not_go_together_are_named(adapter: Path) -> None:
    with_tensors(adapter, lambda t: t.update({FIRST: t[FIRST][:5].contiguous()}))
    assert "are 5×64 and 64×8; expected rank×inputs and outputs×rank" in refusal(adapter)


def test_an_adapter_of_an_embedding_table_is_refused(adapter: Path) -> None:
    name = "base_model.model.model.embed_tokens"
    with_tensors(adapter, lambda t: t.update({f"{name}.lora_embedding_A": t[FIRST].clone()}))
    assert "lora_embedding_A" in refusal(adapter)
    with_tensors(adapter, lambda t: t.pop(f"{name}.lora_embedding_A"))
    table = load_file(BASES / "llama" / "model.safetensors")["model.embed_tokens.weight"]
    with_tensors(adapter, lambda t: t.update({f"{name}.weight": table}))
    assert "replaces a table of embeddings" in refusal(adapter)


def test_an_adapter_without_tensors_is_refused(adapter: Path) -> None:
    with_tensors(adapter, lambda tensors: tensors.clear())
    assert "holds no tensor" in refusal(adapter)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_file_is_named(adapter: Path, name: str) -> None:
    (adapter / name).write_bytes(b"[" * 20)
    assert str(adapter / name) in refusal(adapter)


def test_a_folder_that_is_no_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no adapter_config.json in .*as PEFT writes it"):
        find_adapter(str(tmp_path))


def test_a_hub_id_without_a_revision_is_refused() -> None:
    with pytest.raises(SourceError, match="expected hf:org/name@revision"):
        find_adapter("hf:org/name")
