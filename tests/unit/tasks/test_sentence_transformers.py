"""Embeddings are those of the sentence-transformers library, on tiny random models it saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    Transformer,
)
from torch import nn

from serving.errors import ConfigError
from serving.seams import NO_OPTIONS, AnswerOptions, Checkpoint
from serving.tasks.embeddings import TASK
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
    layers: Sequence[Module] = (),
    **library: Any,
) -> Path:
    """Have the library save a model of random weights."""
    plain = save_checkpoint(folder / "plain", architecture)
    modules = [Transformer(str(plain), **(transformer or {})), Pooling(32, pooling), *layers]
    model = SentenceTransformer(
        modules=[*modules, Normalize()] if normalize else modules, device="cpu", **library
    )
    model.save(str(folder / "saved"), create_model_card=False)
    return folder / "saved"


def assert_same_as_the_library(
    saved: Path, folder: Path, options: AnswerOptions = NO_OPTIONS, **encode: Any
) -> np.ndarray:
    """Compare in a batch and alone; return the answers.

    Args:
        saved: The model.
        folder: Where the task is prepared.
        options: What is asked.
        encode: Arguments of the library's ``encode`` that ask for the same.
    """
    library = SentenceTransformer(str(saved), device="cpu")
    expected = library.encode(TEXTS, **encode)
    task = prepare_and_open("embeddings", saved, folder)
    engine = open_engine(task, saved, folder.with_name("weights"), TEXTS)
    task.check_options(options)
    together = answers(task, engine, TEXTS, options)
    width = options.dimensions or task.width
    assert together.shape == expected.shape == (len(TEXTS), width)
    np.testing.assert_allclose(together, expected, atol=TOLERANCE)
    alone = np.concatenate([answers(task, engine, [text], options) for text in TEXTS])
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


PROMPTS = {"query": "on a mat: ", "document": "the dogs: ", "nothing": ""}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_that_a_request_names(tmp_path: Path, name: str) -> None:
    saved = save(tmp_path, "bert", prompts=PROMPTS, default_prompt_name="query")
    asked = AnswerOptions(prompt_name=name)
    assert_same_as_the_library(saved, tmp_path / "task", asked, prompt_name=name)


@pytest.mark.parametrize("dimensions", [None, 8, 4])
@pytest.mark.parametrize("normalize", [True, False], ids=["module", "no-module"])
def test_unit_length_that_a_request_asks_for(
    tmp_path: Path, normalize: bool, dimensions: int | None
) -> None:
    """The library normalises what is left after all cuts."""
    saved = save(tmp_path, "bert", normalize=normalize, truncate_dim=8)
    rows = assert_same_as_the_library(
        saved,
        tmp_path / "task",
        AnswerOptions(dimensions, normalize=True),
        normalize_embeddings=True,
        truncate_dim=dimensions,
    )
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=TOLERANCE)


@pytest.mark.parametrize("dimensions", [None, 8])
def test_unit_length_that_a_request_does_not_want(tmp_path: Path, dimensions: int | None) -> None:
    """What the library gives of the same model without its last module."""
    saved = save(tmp_path, "bert")
    task = prepare_and_open("embeddings", saved, tmp_path / "task")
    engine = open_engine(task, saved, tmp_path / "weights", TEXTS)
    modules = json.loads((saved / "modules.json").read_text())
    (saved / "modules.json").write_text(json.dumps(modules[:-1]))
    expected = SentenceTransformer(str(saved), device="cpu").encode(TEXTS, truncate_dim=dimensions)
    rows = answers(task, engine, TEXTS, AnswerOptions(dimensions, normalize=False))
    np.testing.assert_allclose(rows, expected, atol=TOLERANCE)
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).min() > 0.05


def a_layer_norm() -> LayerNorm:
    layer = LayerNorm(32)
    with torch.no_grad():
        layer.norm.weight.uniform_(0.5, 2)
        layer.norm.bias.uniform_(-1, 1)
    return layer


ROW_LAYERS: dict[str, Callable[[], list[Module]]] = {
    "as LaBSE": lambda: [Dense(32, 32)],
    "as distiluse": lambda: [Dense(32, 16, activation_function=nn.Tanh())],
    "as Gemma": lambda: [
        Dense(32, 64, bias=False, activation_function=nn.Identity()),
        Dense(64, 32, bias=False, activation_function=nn.Identity()),
    ],
    "residual": lambda: [Dense(32, 32, use_residual=True)],
    "residual, other width": lambda: [Dense(32, 8, use_residual=True)],
    "ReLU": lambda: [Dense(32, 24, activation_function=nn.ReLU())],
    "SiLU": lambda: [Dense(32, 24, activation_function=nn.SiLU())],
    "sigmoid": lambda: [Dense(32, 24, activation_function=nn.Sigmoid())],
    "LayerNorm": lambda: [a_layer_norm()],
    "all": lambda: [Normalize(), a_layer_norm(), Dropout(0.5), Dense(32, 16), Normalize()],
}


@pytest.mark.parametrize("normalize", [True, False], ids=["unit", "free"])
@pytest.mark.parametrize("kind", ROW_LAYERS)
def test_modules_between_pooling_and_answer(tmp_path: Path, kind: str, normalize: bool) -> None:
    torch.manual_seed(5)
    saved = save(tmp_path, "bert", layers=ROW_LAYERS[kind](), normalize=normalize)
    assert_same_as_the_library(saved, tmp_path / "task")


def test_a_dense_module_in_half_precision(tmp_path: Path) -> None:
    """Published weights are often bfloat16, which numpy has not; the library widens them, too."""
    saved = save(tmp_path, "bert", layers=[Dense(32, 16)])
    file = saved / "2_Dense" / "model.safetensors"
    save_file({name: w.bfloat16() for name, w in load_file(file).items()}, file)
    assert_same_as_the_library(saved, tmp_path / "task")


def spoil(file: Path, **weights: torch.Tensor) -> None:
    save_file({**load_file(file), **weights}, file)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"linear.bias": torch.zeros(3)}, r"linear\.bias is \[3\]; expected \[16\]"),
        ({"linear.bias": torch.full((16,), torch.nan)}, r"linear\.bias has numbers that are NaN"),
    ],
)
def test_damaged_weights_of_a_dense_module_are_named(
    tmp_path: Path, weights: dict[str, torch.Tensor], message: str
) -> None:
    saved = save(tmp_path, "bert", layers=[Dense(32, 16)])
    spoil(saved / "2_Dense" / "model.safetensors", **weights)
    with pytest.raises(ConfigError, match=rf"2_Dense/model\.safetensors: {message}"):
        prepare_and_open("embeddings", saved, tmp_path / "task")


def test_a_dense_module_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    saved = save(tmp_path, "bert", layers=[Dense(24, 16)])
    with pytest.raises(ConfigError, match="2_Dense: takes 24 numbers; what comes before gives 32"):
        prepare_and_open("embeddings", saved, tmp_path / "task")


def test_pickled_weights_of_a_dense_module_are_not_loaded(tmp_path: Path) -> None:
    saved = save(tmp_path, "bert", layers=[Dense(32, 16)])
    file = saved / "2_Dense" / "model.safetensors"
    file.rename(file.with_name("pytorch_model.bin"))
    config = json.loads((saved / "config.json").read_text())
    assert TASK.check is not None
    with pytest.raises(ConfigError, match=r"no model\.safetensors; it holds pytorch_model\.bin"):
        TASK.check(Checkpoint(saved), config)
