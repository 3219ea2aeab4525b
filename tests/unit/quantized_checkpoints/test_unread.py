"""What belongs to a quantized layer and would be taken for a weight is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from serving.checkpoint import read_headers
from serving.errors import SourceError
from serving.quantized_checkpoints import unread_part
from serving.seams import Checkpoint, WeightShape

CHECKPOINTS = Path(__file__).parent / "checkpoints"
LAYER = "model.layers.0.mlp.down_proj"
FP8 = torch.zeros(64, 128).to(torch.float8_e4m3fn)


def changed(folder: Path, name: str, tensors: dict[str, Tensor], **config: Any) -> Checkpoint:
    """A checkpoint with more tensors and another configuration."""
    shutil.copytree(CHECKPOINTS / name, folder, dirs_exist_ok=True)
    (folder / "expected.safetensors").unlink()
    save_file(load_file(folder / "model.safetensors") | tensors, folder / "model.safetensors")
    said = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(said))
    return Checkpoint(folder)


def test_a_file_whose_configuration_says_nothing_is_refused(tmp_path: Path) -> None:
    """As NVIDIA's ModelOpt leaves it, which has a file of its own for what it did."""
    checkpoint = changed(tmp_path, "w8a8-fp8", {}, quantization_config=None)
    with pytest.raises(SourceError, match=r"model\.safetensors: model\.layers\.0\..*: part of a q"):
        read_headers(checkpoint)


@pytest.mark.parametrize("name", ["fp8", "awq", "hqq-4bit", "torchao-int4", "quip-2bit", "w4a16"])
def test_every_form_is_known_by_its_tensors(tmp_path: Path, name: str) -> None:
    checkpoint = changed(tmp_path, name, {}, quantization_config=None, quip_params=None)
    with pytest.raises(SourceError, match="part of a quantized layer that is not read"):
        read_headers(checkpoint)


@pytest.mark.parametrize(
    ("name", "tensors", "named"),
    [
        ("awq", {"model.layers.0.mlp.act.scales": torch.ones(128)}, "mlp.act.scales"),
        ("awq", {"h.0.mlp.gelu_impl.scales": torch.ones(128)}, "mlp.gelu_impl.scales"),
        ("fp8", {f"{LAYER}.experts.gate_up_proj": FP8}, "gate_up_proj"),
        ("fp8", {f"{LAYER}.gate_up_proj_scale_inv": torch.ones(2)}, "gate_up_proj_scale_inv"),
        ("gptq-4bit", {"lm_head.weight_scale": torch.ones(2)}, "lm_head.weight_scale"),
        ("bitsandbytes-int8", {f"{LAYER}.v.weight": torch.ones(2).to(torch.int8)}, "v.weight"),
    ],
)
def test_what_a_form_leaves_over_is_refused(
    tmp_path: Path, name: str, tensors: dict[str, Tensor], named: str
) -> None:
    checkpoint = changed(tmp_path, name, tensors)
    with pytest.raises(SourceError, match=f"{named}: part of a quantized layer"):
        read_headers(checkpoint)


def test_masks_and_scales_of_float_models_pass() -> None:
    """GPT-2 and GPT-NeoX keep masks of whole numbers, older BERT positions."""
    shapes = [
        WeightShape(name, (4, 4), is_embedding=False, dtype=dtype)
        for name, dtype in (
            ("h.0.attn.bias", "U8"),
            ("gpt_neox.layers.0.attention.bias", "BOOL"),
            ("embeddings.position_ids", "I64"),
            ("encoder.norm.scale", "F32"),
            ("logit_scale", "F32"),
            ("attention.W_q", "F32"),
            ("quantizer.codebooks", "F32"),
            ("model.embed_tokens.weight", "F32"),
            ("model.layers.0.self_attn.k_scale", "F32"),
        )
    ]
    assert unread_part(shapes, {"model_type": "gpt2"}) is None
