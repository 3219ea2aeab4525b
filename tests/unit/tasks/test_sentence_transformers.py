"""Embeddings are those of the sentence-transformers library, on tiny random models it saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from tests.unit.tasks.answering import answers, open_engine, prepare_and_open
from tests.unit.tasks.tiny_checkpoints import save_checkpoint

# Both run the same model in float32; the library pads to the longest text and sums in torch, we pad
# to multiples of eight and pool in numpy.
TOLERANCE = 1e-5
TEXTS = [
    "The cat",
    "a mat",
    "Dogs bark at THE cat, and never again!",
    "x",
    "the cat sat on a mat " * 10,
]
ENCODERS = ["bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "modernbert"]


def save(
    folder: Path,
    architecture: str,
    pooling: str = "mean",
    normalize: bool = True,
    transformer: dict[str, Any] | None = None,
    **library: Any,
) -> Path:
    """Have the library save a model of random weights."""
    plain = save_checkpoint(folder / "plain", architecture)
    modules = [Transformer(str(plain), **(transformer or {})), Pooling(32, pooling)]
    model = SentenceTransformer(
        modules=[*modules, Normalize()] if normalize else modules, device="cpu", **library
    )
    model.save(str(folder / "saved"), create_model_card=False)
    return folder / "saved"


def assert_same_as_the_library(saved: Path, folder: Path) -> np.ndarray:
    """Compare in a batch and alone; return the answers."""
    library = SentenceTransformer(str(saved), device="cpu")
    expected = library.encode(TEXTS)
    task = prepare_and_open("embeddings", saved, folder)
    engine = open_engine(task, saved, folder.with_name("weights"), TEXTS)
    together = answers(task, engine, TEXTS)
    assert together.shape == expected.shape == (len(TEXTS), task.width)
    np.testing.assert_allclose(together, expected, atol=TOLERANCE)
    alone = np.concatenate([answers(task, engine, [text]) for text in TEXTS])
    np.testing.assert_allclose(alone, expected, atol=TOLERANCE)
    return together


@pytest.mark.parametrize("architecture", ENCODERS)
def test_vectors_of_encoders(tmp_path: Path, architecture: str) -> None:
    rows = assert_same_as_the_library(save(tmp_path, architecture), tmp_path / "task")
    # The texts' vectors differ, or the comparison would show little.
    assert abs(rows @ rows.T - np.eye(len(rows))).max() < 0.999


@pytest.mark.parametrize("pooling", ["cls", "max", "lasttoken"])
def test_other_poolings(tmp_path: Path, pooling: str) -> None:
    assert_same_as_the_library(save(tmp_path, "bert", pooling), tmp_path / "task")


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_decoder_s_last_token(tmp_path: Path, side: str) -> None:
    saved = save(
        tmp_path, "qwen3", "lasttoken", transformer={"processor_kwargs": {"padding_side": side}}
    )
    assert_same_as_the_library(saved, tmp_path / "task")


def test_vectors_without_the_module_normalize(tmp_path: Path) -> None:
    rows = assert_same_as_the_library(save(tmp_path, "bert", normalize=False), tmp_path / "task")
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).min() > 0.1


def test_the_library_s_own_length(tmp_path: Path) -> None:
    saved = save(tmp_path, "bert", transformer={"max_seq_length": 11})
    assert_same_as_the_library(saved, tmp_path / "task")


def test_a_text_is_cut_on_the_tokenizer_s_side(tmp_path: Path) -> None:
    saved = save(tmp_path, "bert", transformer={"processor_kwargs": {"truncation_side": "left"}})
    assert_same_as_the_library(saved, tmp_path / "task")


def test_lower_case_that_the_files_ask_for(tmp_path: Path) -> None:
    saved = save(tmp_path, "roberta")
    settings = json.loads((saved / "sentence_bert_config.json").read_text())
    (saved / "sentence_bert_config.json").write_text(
        json.dumps({**settings, "do_lower_case": True, "max_seq_length": 20})
    )
    assert_same_as_the_library(saved, tmp_path / "task")


def test_the_default_prompt_stands_before_every_text(tmp_path: Path) -> None:
    saved = save(tmp_path, "bert", prompts={"query": "on a mat: "}, default_prompt_name="query")
    assert_same_as_the_library(saved, tmp_path / "task")


def test_the_leading_dimensions_are_left_as_they_are(tmp_path: Path) -> None:
    rows = assert_same_as_the_library(save(tmp_path, "bert", truncate_dim=8), tmp_path / "task")
    assert np.linalg.norm(rows, axis=1).max() < 0.99


def test_a_model_as_old_versions_saved_it(tmp_path: Path) -> None:
    saved = save(tmp_path, "bert", "cls")
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": n, "name": f"{n}", "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(paths.items())
    ]
    (saved / "modules.json").write_text(json.dumps(modules))
    (saved / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 12, "do_lower_case": False})
    )
    switches = {"cls_token": True, "mean_tokens": False, "max_tokens": False}
    (saved / "1_Pooling" / "config.json").write_text(
        json.dumps(
            {
                "word_embedding_dimension": 32,
                **{f"pooling_mode_{name}": on for name, on in switches.items()},
            }
        )
    )
    (saved / "2_Normalize" / "config.json").unlink()
    assert_same_as_the_library(saved, tmp_path / "task")
