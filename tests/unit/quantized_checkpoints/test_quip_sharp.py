"""What QuIP#'s checkpoints say of themselves, and parts that do not go together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from serving.checkpoint import read_config, read_headers
from serving.errors import SourceError
from serving.quantized_checkpoints import why_not_kept
from serving.runtimes.torch.decoder.opening import open_decoder
from serving.runtimes.torch.decoder.preparing import prepare_generator
from serving.runtimes.torch.expanding import as_floats
from serving.seams import Checkpoint, Segment
from tests.unit.runtimes.stored_checkpoints import make
from tests.unit.runtimes.tiny_generators import open_request

FOLDER = Path(__file__).parent / "checkpoints" / "quip-3bit"
QKV, DOWN = "model.layers.0.self_attn.qkv_proj", "model.layers.0.mlp.down_proj"


def changed(folder: Path, changes: dict[str, Tensor | None]) -> Checkpoint:
    """The checkpoint with other tensors, or without some."""
    shutil.copytree(FOLDER, folder)
    tensors = {**load_file(folder / "model.safetensors"), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors")
    return Checkpoint(folder)


def test_what_it_says_stands_in_a_place_of_its_own(tmp_path: Path) -> None:
    assert why_not_kept(read_config(Checkpoint(FOLDER)), [4, 8]) == (
        "the weights of this checkpoint, of 'quip-sharp', are no integers with scales"
    )
    shutil.copytree(FOLDER, tmp_path / "older")
    config = json.loads((FOLDER / "config.json").read_text())
    config["quip_params"]["codebook"] = "HI4B1C"
    (tmp_path / "older" / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match="by 'quip-sharp', but codebook is 'HI4B1C'; E8P12, "):
        read_headers(Checkpoint(tmp_path / "older"))


def test_an_expanded_copy_says_nothing_of_it() -> None:
    with as_floats(Checkpoint(FOLDER)) as checkpoint:
        said = read_config(checkpoint)
        names = {shape.name for shape in read_headers(checkpoint).shapes}
    assert not {"quip_params", "quantization_config"} & said.keys()
    assert not any("qkv_proj" in name or "upgate_proj" in name for name in names)


@pytest.mark.parametrize("name", ["quip-2bit", "quip-3bit", "quip-4bit"])
def test_a_checkpoint_is_prepared_and_answers(tmp_path_factory: Any, name: str) -> None:
    """As transformers does with the weights of the library's own code; float32 in other orders."""
    made = make(prepare_generator, [name], ["fp32"], tmp_path_factory.mktemp)
    decoder = open_decoder(open_request("fp32", made[name, "fp32"][0], slot_tokens=64))
    folder, tokens = FOLDER.parent / name, list(range(5, 45))
    got = decoder.step([Segment(0, 0, tokens, len(tokens))])
    config = json.loads((folder / "config.json").read_text())
    model = LlamaForCausalLM(LlamaConfig(**config)).eval()
    files = ("model.safetensors", "expected.safetensors")
    tensors = {key: one.float() for file in files for key, one in load_file(folder / file).items()}
    known = model.state_dict().keys()
    model.load_state_dict({key: one for key, one in tensors.items() if key in known})
    with torch.inference_mode():
        wanted = model(torch.tensor([tokens])).logits[0]
    distance = (torch.from_numpy(got) - wanted).norm() / wanted.norm()
    assert distance < 1e-5


@pytest.mark.parametrize(
    ("name", "tensor", "reason"),
    [
        (f"{QKV}.SU", None, "'SU'"),
        (f"{QKV}.fuse_scales", None, "'fuse_scales'"),
        (f"{QKV}.fuse_scales", torch.ones(2), "fuse_scales are .2,.; 3 are expected"),
        (f"{QKV}.fuse_scales", torch.ones(4), "192 outputs of 64 inputs are not 4 layers"),
        (f"{DOWN}.SU", torch.ones(10**6, 1), "SU is .1000000, 1.; expected .192,."),
        (f"{DOWN}.SV", torch.ones(192), "SV is .192,.; expected .64,."),
        (f"{DOWN}.scaleWH", torch.ones(1), "scaleWH is .1,.; expected .192,."),
        (f"{DOWN}.scaleWH", None, "'scaleWH'"),
        (f"{DOWN}.Wscale", torch.ones(64), "Wscale is .64,.; expected .."),
        (f"{DOWN}.codebook_id", torch.tensor(7), "codebook_id is 7; expected 18"),
        (f"{DOWN}.bias", torch.ones(64), "bias is not read"),
        (f"{DOWN}.A", torch.ones(64, 2), "A is not read"),
        (f"{DOWN}.Qidxs", torch.zeros(64, 9, dtype=torch.int32), "torch.int32; expected"),
        (f"{DOWN}.Qidxs", torch.zeros(64, 8, dtype=torch.int64), "no blocks of 16 outputs and 64"),
        (f"{DOWN}.Qidxs", torch.zeros(8, 9, dtype=torch.int64), "no blocks of 16 outputs and 64"),
    ],
)
def test_parts_that_do_not_go_together_are_named(
    tmp_path: Path, name: str, tensor: Tensor | None, reason: str
) -> None:
    checkpoint = changed(tmp_path / "wrong", {name: tensor})
    layer = name.rpartition(".")[0]
    with pytest.raises(SourceError, match=rf"{layer}: .* cannot be read from .*{reason}"):  # noqa: SIM117
        with as_floats(checkpoint):
            pass


@pytest.mark.parametrize("scales", [None, torch.ones(2)])
def test_fused_layers_are_held_against_their_scales_by_the_headers(
    tmp_path: Path, scales: Tensor | None
) -> None:
    checkpoint = changed(tmp_path / "wrong", {f"{QKV}.fuse_scales": scales})
    with pytest.raises(SourceError, match="fuse_scales"):
        read_headers(checkpoint)
