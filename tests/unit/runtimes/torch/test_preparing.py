"""What can be prepared, what cannot, and what is said of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    DebertaV2Config,
    DebertaV2Model,
    T5Config,
    T5Model,
)

from serving.errors import ConfigError
from serving.seams import Checkpoint
from tests.unit.runtimes.tiny_models import (
    HEADS,
    TORCH_ENCODERS,
    open_prepared,
    padded_batch,
    prepare,
    save_model,
)

REMOTE_CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class TinyConfig(PretrainedConfig):
    model_type = "tiny-remote"


class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.table = torch.nn.Embedding(1000, 64)
        self.layer = torch.nn.Linear(64, 64)
        self.calls = []
        self.post_init()

    def forward(self, input_ids, attention_mask):
        hidden = self.table(input_ids) + FORGOTTEN
        return BaseModelOutput(last_hidden_state=self.layer(hidden))
"""


def save_remote(folder: Path, forgotten: str = "0") -> Checkpoint:
    """Write a model whose code comes with it; ``forgotten`` is added to its hidden states."""
    folder.mkdir()
    (folder / "tiny.py").write_text(REMOTE_CODE.replace("FORGOTTEN", forgotten))
    config = {
        "model_type": "tiny-remote",
        "auto_map": {"AutoConfig": "tiny.TinyConfig", "AutoModel": "tiny.TinyModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    tensors = {"table.weight": (1000, 64), "layer.weight": (64, 64), "layer.bias": (64,)}
    weights = {name: torch.randn(shape) for name, shape in tensors.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return Checkpoint(folder, trust_remote_code=True)


@pytest.mark.parametrize("recipe", TORCH_ENCODERS)
def test_tables_that_a_model_reads_past_their_modules_stay_float(
    tmp_path: Path, recipe: str
) -> None:
    config = DebertaV2Config(
        vocab_size=1000,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
    )
    torch.manual_seed(0)
    DebertaV2Model(config).save_pretrained(tmp_path / "model")
    checkpoint, head = Checkpoint(tmp_path / "model"), HEADS["embeddings"]
    prepared = prepare("torch", recipe, checkpoint, head, tmp_path / recipe)
    rows = open_prepared("torch", recipe, head, tmp_path / recipe).forward(padded_batch([9, 5]))
    assert np.isfinite(rows).all()
    if recipe.startswith("int"):
        assert "as the model reads them directly: encoder.rel_embeddings" in prepared.notes[0]


def test_calibration_sees_inputs_that_the_model_accepts(tmp_path: Path) -> None:
    config = BartConfig(
        vocab_size=1000,
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_position_embeddings=64,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    BartForSequenceClassification(config).save_pretrained(tmp_path / "model")
    # It refuses rows unless each ends in as many of these tokens.
    example = padded_batch([9, 9])
    example["input_ids"][example["input_ids"] == 2] = 3
    example["input_ids"][:, -1] = 2
    checkpoint, head = Checkpoint(tmp_path / "model"), HEADS["classification"]
    prepare("torch", "int4", checkpoint, head, tmp_path / "int4", example)
    rows = open_prepared("torch", "int4", head, tmp_path / "int4").forward(example)
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("recipe", TORCH_ENCODERS)
def test_code_that_comes_with_a_trusted_checkpoint_goes_into_the_artifact(
    tmp_path: Path, recipe: str
) -> None:
    checkpoint, head = save_remote(tmp_path / "model"), HEADS["embeddings"]
    prepare("torch", recipe, checkpoint, head, tmp_path / recipe)
    engine = open_prepared("torch", recipe, head, tmp_path / recipe)
    assert engine.forward(padded_batch([9, 5])).shape == (2, 64)
    assert (tmp_path / recipe / "tiny.py").is_file()


def test_a_model_that_draws_lots_is_refused(tmp_path: Path) -> None:
    checkpoint = save_remote(tmp_path / "model", "torch.rand(64) * 0.5")
    with pytest.raises(ConfigError, match="answers the same batch otherwise each time"):
        prepare("torch", "fp32", checkpoint, HEADS["embeddings"], tmp_path / "artifact")


def test_numbers_outside_of_modules_are_refused(tmp_path: Path) -> None:
    # Whatever a model makes up for itself when it is built is another thing when it is opened.
    made_up = 'self.__dict__.setdefault("made_up", torch.rand(64) * 0.5)'
    checkpoint = save_remote(tmp_path / "model", made_up)
    with pytest.raises(ConfigError, match="opened again, it gives other answers"):
        prepare("torch", "fp32", checkpoint, HEADS["embeddings"], tmp_path / "artifact")


def test_a_model_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=1000, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    T5Model(config).save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="as an encoder, the model does not run: ValueError"):
        prepare(
            "torch",
            "fp32",
            Checkpoint(tmp_path / "model"),
            HEADS["embeddings"],
            tmp_path / "artifact",
        )


def test_calibration_is_told(tmp_path: Path) -> None:
    checkpoint = save_model(tmp_path / "model", "embeddings")
    prepared = prepare(
        "torch", "int8-static", checkpoint, HEADS["embeddings"], tmp_path / "artifact"
    )
    # How many, that depends on the CPU: where inputs keep 7 bits, more of them gain by it.
    (note,) = prepared.notes
    assert re.fullmatch(r"\d of 12 layers divide their inputs by factors of their own", note)


def test_int4_of_another_cpu_is_refused(tmp_path: Path) -> None:
    checkpoint, head = save_model(tmp_path / "model", "embeddings"), HEADS["embeddings"]
    prepare("torch", "int4", checkpoint, head, tmp_path / "artifact")
    file = tmp_path / "artifact" / "modules.json"
    description: dict[str, Any] = json.loads(file.read_text())
    for kernel in description["kernels"]:
        if kernel["kind"] == "Int4Linear":
            kernel["settings"]["kernel_block"] = 16
    file.write_text(json.dumps(description))
    with pytest.raises(ConfigError, match=r"blocks of 16 outputs.*prepare it on a machine of this"):
        open_prepared("torch", "int4", head, tmp_path / "artifact")
