"""A real checkpoint becomes an artifact of the torch runtime, and answers from it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from serving.app.plan import make_plan
from serving.artifacts import Artifact, ArtifactStore, ensure
from serving.recipes import RECIPES
from serving.settings import load_config
from tests.unit.artifacts.opened import opened

WORDS = ["[PAD]", "[UNK]", *"abcdefgh"]
TEXTS = ["a b c", "d", "e f g h a b"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of a tiny BERT of random weights."""
    torch.manual_seed(0)
    folder = tmp_path / "bert"
    sizes: dict[str, Any] = {
        "vocab_size": len(WORDS),
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "max_position_embeddings": 32,
        # Five times the usual spread, or every layer would be close to the identity.
        "initializer_range": 0.1,
    }
    BertModel(BertConfig(**sizes)).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    file = tmp_path / "config.yaml"
    file.write_text(
        f"models:\n- {{name: bert, task: embeddings, source: {folder}, "
        "variants: [fp32, int8-dynamic]}\n"
    )
    return file


def rows_of(artifact: Artifact) -> np.ndarray:
    """What the artifact answers to ``TEXTS``."""
    task, engine = opened(artifact)
    return task.decode(engine.forward(task.collate(task.prepare(TEXTS, False))))


def expected(folder: Path) -> np.ndarray:
    """The same by transformers, one text at a time."""
    model = BertModel.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    rows = []
    with torch.no_grad():
        for text in TEXTS:
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state
            rows.append(torch.nn.functional.normalize(hidden.mean(1)).numpy()[0])
    return np.stack(rows)


def test_an_artifact_answers_as_its_source_does(config: Path, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    fp32, int8 = make_plan(load_config(config)).variants
    made, quantized = ensure(fp32.artifact, store), ensure(int8.artifact, store)
    reference = expected(tmp_path / "bert")
    # Another order of float32 sums, and nothing else.
    np.testing.assert_allclose(rows_of(made), reference, atol=1e-5)
    cosines = (rows_of(quantized) * reference).sum(axis=1)
    promised = RECIPES["int8-dynamic"].encoder
    assert promised is not None
    assert cosines.min() > promised.cosine
    # Of so small a model, fbgemm pads the packed weights to more than float32 has.
    assert quantized.size < made.size
    assert made.manifest.key.versions["torch"] == torch.__version__
