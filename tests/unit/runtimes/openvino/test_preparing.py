"""What an artifact is made of, and which models are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from serving.errors import ConfigError
from serving.runtimes.openvino.conversion import convert
from serving.runtimes.openvino.opening import GRAPH, WEIGHTS
from serving.runtimes.openvino.preparing import check_answers
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Checkpoint, Head, Logits, Pooled
from tests.matrix import pairs
from tests.unit.runtimes.openvino.conftest import Artifact
from tests.unit.runtimes.tiny_models import (
    open_prepared,
    padded_batch,
    prepare,
    save_model,
)

SIZES: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 80,
    "pad_token_id": 0,
    "initializer_range": 0.1,
}

CONFIGS: dict[str, transformers.PretrainedConfig] = {
    "roberta": transformers.RobertaConfig(**SIZES),
    "xlm-roberta": transformers.XLMRobertaConfig(**SIZES),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=1000, dim=64, n_layers=4, n_heads=4, hidden_dim=128, initializer_range=0.1
    ),
    "mpnet": transformers.MPNetConfig(**SIZES),
    "electra": transformers.ElectraConfig(**SIZES, embedding_size=64),
    "albert": transformers.AlbertConfig(**SIZES, embedding_size=32),
    "deberta-v2": transformers.DebertaV2Config(
        **(SIZES | {"position_buckets": 16}), relative_attention=True, pos_att_type=["p2c", "c2p"]
    ),
    # Padding further away than half of ``local_attention`` sees no token at all.
    "modernbert": transformers.ModernBertConfig(
        **(SIZES | {"global_attn_every_n_layers": 2}), local_attention=16,
        bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2,
    ),
    "qwen3": transformers.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=16),
}  # fmt: skip


HEADS = (Pooled(), Pooled(pooling="last"), Logits())


@pytest.mark.parametrize(("name", "head"), pairs(CONFIGS, HEADS), ids=str)
def test_architectures_answer_as_in_torch(tmp_path: Path, name: str, head: Head) -> None:
    torch.manual_seed(0)
    auto: Any = transformers.AutoModelForSequenceClassification
    if isinstance(head, Pooled):
        auto = transformers.AutoModel
    auto.from_config(CONFIGS[name]).save_pretrained(tmp_path / "model")
    rows = {}
    batch = padded_batch([5, 60, 12, 33, 8, 21, 2, 47])
    for runtime in ("torch", "openvino"):
        prepare(runtime, "fp32", Checkpoint(tmp_path / "model"), head, tmp_path / runtime)
        rows[runtime] = open_prepared(runtime, "fp32", head, tmp_path / runtime).forward(batch)
    # Another order of float32 sums, as in the recipe's expectation, over twice the layers.
    scale = np.abs(rows["torch"]).max()
    np.testing.assert_allclose(rows["openvino"], rows["torch"], rtol=0, atol=1e-4 * scale)


def test_a_graph_that_answers_otherwise_is_refused(tmp_path: Path) -> None:
    example = padded_batch([9, 4, 30])
    one, other = (
        load_pretrained(
            save_model(tmp_path / str(seed), "embeddings", seed), "AutoModel", torch.float32
        )
        for seed in (0, 1)
    )
    graph = convert(one, example, "one")
    check_answers(graph, one, Pooled(), example, "one")
    with pytest.raises(ConfigError, match=r"other: .* answers otherwise than in torch for 3 rows"):
        check_answers(graph, other, Pooled(), example, "other")


def test_a_graph_that_is_fixed_to_its_example_is_refused(tmp_path: Path) -> None:
    example = padded_batch([9, 4, 30])
    checkpoint = save_model(tmp_path, "embeddings")
    model = load_pretrained(checkpoint, "AutoModel", torch.float32)
    graph = convert(model, example, "fixed")
    graph.reshape({name: list(array.shape) for name, array in example.items()})
    with pytest.raises(ConfigError, match=r"fixed: .* cannot take 1 rows of 9 tokens"):
        check_answers(graph, model, Pooled(), example, "fixed")


def test_what_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    model = load_pretrained(save_model(tmp_path, "embeddings"), "AutoModel", torch.float32)
    example = padded_batch([100, 4])  # more tokens than the model has positions
    with pytest.raises(ConfigError, match="OpenVINO cannot convert the model"):
        convert(model, example, str(tmp_path))


def test_only_the_files_that_are_opened_are_left(artifact: Artifact) -> None:
    files = {path.name for path in artifact("int8-static", Logits()).iterdir()}
    assert files == {GRAPH, WEIGHTS}


@pytest.mark.parametrize(
    ("recipe", "note"),
    [
        ("fp32", "12 linear layers in f32"),
        ("bf16", "12 linear layers in f16"),
        ("int8-weights", "12 linear layers in u8"),
        ("int8-static", "12 linear layers in i8"),
        ("int4", "11 linear layers in u4 (groups of 64), 1 in u8"),
    ],
)
def test_the_notes_say_how_layers_are_kept(tmp_path: Path, recipe: str, note: str) -> None:
    checkpoint = save_model(tmp_path / "model", "embeddings")
    prepared = prepare("openvino", recipe, checkpoint, Pooled(), tmp_path / "artifact")
    assert prepared.notes == (note,)


def test_groups_that_do_not_divide_a_layer_are_halved(tmp_path: Path) -> None:
    checkpoint = save_model(tmp_path / "model", "embeddings", hidden_size=96)
    prepared = prepare("openvino", "int4", checkpoint, Pooled(), tmp_path / "a", group_size=128)
    (note,) = prepared.notes
    assert note == ("10 linear layers in u4 (groups of 32), 1 in u4 (groups of 128), 1 in u8")


def test_preparing_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoint = save_model(tmp_path / "model", "embeddings")
    capfd.readouterr()
    prepare("openvino", "int8-static", checkpoint, Pooled(), tmp_path / "artifact")
    assert capfd.readouterr().out == ""
