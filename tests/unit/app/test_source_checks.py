"""Sources that do not suit their task or their model's reference are refused, and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from serving.app.plan import make_plan
from serving.errors import ConfigError
from serving.settings import load_config
from tests.unit.conftest import WriteConfig

pytestmark = pytest.mark.usefixtures("paper")

REFERENCE = "{name: fp32, runtime: paper}"
CLASSIFIER = {"architectures": ["BertForSequenceClassification"]}


def configure(folder: Path, **config: Any) -> None:
    """Write the config of a tiny BERT, with changes."""
    whole = {"model_type": "bert", "hidden_size": 4, **config}
    (folder / "config.json").write_text(json.dumps(whole))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another checkpoint."""
    folder = tmp_path / "other"
    folder.mkdir()
    configure(folder)
    save_file({"a": np.zeros(7, np.float32)}, folder / "model.safetensors")
    return folder


def write_tokenizer(folder: Path, *words: str) -> None:
    numbers = {word: number for number, word in enumerate(words)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(numbers, unk_token=words[0])), unk_token=words[0]
    ).save_pretrained(folder)


def with_own_source(folder: Path) -> str:
    own = f"{{name: folded, recipe: fp32, runtime: paper, source: {folder}}}"
    return f"[{REFERENCE}, {own}]"


def refusal(config: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        make_plan(load_config(config))
    return str(caught.value)


def plan_is_made(config: Path) -> bool:
    return len(make_plan(load_config(config)).variants) == 2


@pytest.mark.parametrize("task", ["classification", "rerank"])
def test_a_checkpoint_without_a_classifier(
    write_config: WriteConfig, checkpoint_folder: Path, task: str
) -> None:
    configure(checkpoint_folder, architectures=["BertModel"])
    said = refusal(write_config(f"[{REFERENCE}]", task))
    assert said == (
        f"models[0].source: {checkpoint_folder}: holds a BertModel, which has no classifier; "
        "expected a …ForSequenceClassification"
    )


def test_a_variant_s_own_source_without_a_classifier(
    write_config: WriteConfig, checkpoint_folder: Path, other: Path
) -> None:
    configure(checkpoint_folder, **CLASSIFIER)
    configure(other, architectures=["BertModel"])
    said = refusal(write_config(with_own_source(other), "classification"))
    assert said.startswith(f"models[0].variants[1].source: {other}: holds a BertModel")


def test_a_classifier_of_several_labels_for_rerank(
    write_config: WriteConfig, checkpoint_folder: Path
) -> None:
    configure(checkpoint_folder, **CLASSIFIER)
    said = refusal(write_config(f"[{REFERENCE}]", "rerank"))
    assert "its classifier has 2 logits; a cross-encoder has one (num_labels: 1)" in said


def test_a_cross_encoder_whose_activation_is_not_built(
    write_config: WriteConfig, checkpoint_folder: Path
) -> None:
    own = {"activation_fn": "torch.nn.modules.activation.Tanh"}
    configure(checkpoint_folder, **CLASSIFIER, num_labels=1, sentence_transformers=own)
    said = refusal(write_config(f"[{REFERENCE}]", "rerank"))
    assert f"unsupported activation function {own['activation_fn']}; supported: torch.nn" in said


def test_embeddings_of_modules_that_are_not_built(
    write_config: WriteConfig, checkpoint_folder: Path
) -> None:
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "LSTM")]
    (checkpoint_folder / "modules.json").write_text(
        json.dumps([{**m, "path": ""} for m in modules])
    )
    said = refusal(write_config(f"[{REFERENCE}]"))
    assert said.startswith(f"models[0].source: {checkpoint_folder / 'modules.json'}: unsupported")


def test_own_vectors_of_another_width(write_config: WriteConfig, other: Path) -> None:
    configure(other, hidden_size=8, num_attention_heads=1)
    said = refusal(write_config(with_own_source(other)))
    assert said == (
        "models[0].variants[1].source: answers could not be compared with those of the reference "
        f"'fp32': {other} has vectors of 8 numbers; the reference's have 4. Name another form of "
        "the reference's checkpoint, or serve this one as a model of its own"
    )
    configure(other)
    assert plan_is_made(write_config(with_own_source(other)))


def test_own_labels_that_differ(
    write_config: WriteConfig, checkpoint_folder: Path, other: Path
) -> None:
    configure(checkpoint_folder, **CLASSIFIER, id2label={"1": "good", "0": "bad"})
    configure(other, **CLASSIFIER)
    said = refusal(write_config(with_own_source(other), "classification"))
    assert "has labels LABEL_0, LABEL_1; the reference has bad, good. Name another" in said
    configure(other, **CLASSIFIER, id2label={"0": "bad", "1": "good"})
    assert plan_is_made(write_config(with_own_source(other), "classification"))


def test_own_tokens_that_mean_something_else(
    write_config: WriteConfig, checkpoint_folder: Path, other: Path
) -> None:
    write_tokenizer(checkpoint_folder, "?", "a", "b")
    write_tokenizer(other, "?", "b", "a")
    said = refusal(write_config(with_own_source(other), "generation"))
    assert "has a vocabulary whose token 1 is 'b'; the reference's is 'a'. Name another" in said
    write_tokenizer(other, "?", "a", "b", "padding")
    assert plan_is_made(write_config(with_own_source(other), "generation"))


def test_own_files_that_cannot_be_compared(write_config: WriteConfig, other: Path) -> None:
    configure(other, model_type="no-such-model")
    said = refusal(write_config(with_own_source(other)))
    assert said.startswith(
        f"models[0].variants[1].source: cannot be compared with the reference: {other}: the model's"
    )
