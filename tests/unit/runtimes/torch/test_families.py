"""Every family of text models: answered as transformers does in every recipe, or refused."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from serving.checkpoint import read_config
from serving.errors import ConfigError
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.runtimes.torch.encoder_architectures import HALF, MIXES_TYPES
from serving.seams import Checkpoint, Combination, EncoderTask, Pooled
from serving.tasks import TASKS
from serving.tasks.text_architectures import READS_PADDING
from tests.matrix import pairs, takes_all
from tests.unit.runtimes.families import (
    BEYOND,
    DECODERS,
    ENCODERS,
    MODELS,
    POSITIONS,
    WITHOUT_CLASSIFIER,
    save_family,
)
from tests.unit.runtimes.tiny_models import TORCH_ENCODERS, open_prepared, padded_batch, prepare

TEXTS = ["the cat sat on a mat", "dogs", "never again bark", "z" * 200]
"""Short ones of several lengths, and one that is longer than any model of these takes."""

LIMIT = 64
"""Tokens, where a family has no limit of its own."""

REFUSED = {
    **dict.fromkeys(product(READS_PADDING, MODELS), "its layers read padding"),
    **dict.fromkeys(product(("big_bird", "bigbird_pegasus"), MODELS), "block-sparse attention"),
    **dict.fromkeys(product(("mra",), MODELS), "needs a CUDA kernel"),
    **dict.fromkeys(product(("perceiver",), MODELS), "it takes no texts as token ids"),
    **dict.fromkeys(product(("t5", "mt5", "umt5"), ["embeddings"]), "inputs for a decoder"),
    ("funnel", "embeddings"): "padding shifts what it pools",
    ("xlnet", "classification"): "the last position of a row",
}
"""What is out of reach, and the reason that is given before anything is loaded."""

# A machine that has time meets decoders with classifiers, too; others meet one of each kind.
FAMILIES = [
    *ENCODERS,
    *(
        DECODERS
        if takes_all()
        else ("bloom", "canine", "gemma3_text", "gpt2", "gpt_neo", "mpt", "qwen3", "xlnet")
    ),
]
CELLS = [
    (family, task, recipe)
    for family, (task, recipe) in pairs(FAMILIES, product(MODELS, TORCH_ENCODERS))
    if not (task == "classification" and family in WITHOUT_CLASSIFIER)
]


@pytest.mark.parametrize(("family", "task", "recipe"), CELLS)
def test_a_family_is_answered_as_transformers_does_or_refused(
    family: str, task: str, recipe: str, tmp_path: Path
) -> None:
    save_family(tmp_path / "model", family, task)
    checkpoint = Checkpoint(tmp_path / "model")
    check = TASKS[task].check
    assert check is not None
    if (family, task) in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[family, task]):
            check(checkpoint, read_config(checkpoint))
        return
    check(checkpoint, read_config(checkpoint))
    combination = Combination(recipe, "encoder", "cpu", "safetensors", read_config(checkpoint))
    if RUNTIMES["torch"].why_not(combination) is not None:
        assert family in MIXES_TYPES
        assert recipe in HALF
        return
    opened = open_task(task, checkpoint, tmp_path / "task")
    assert opened.max_tokens == LIMIT or POSITIONS - 4 < opened.max_tokens <= POSITIONS
    items = opened.prepare(TEXTS, True)
    example = opened.collate(items)
    calibration = [opened.collate(opened.prepare([f"{n} sits on {n}" * 2], True)) for n in "abcd"]
    folder = tmp_path / "artifact"
    prepare("torch", recipe, checkpoint, opened.head, folder, example, calibration)
    engine = open_prepared("torch", recipe, opened.head, folder)
    together = opened.decode(engine.forward(example))
    alone = np.concatenate(
        [opened.decode(engine.forward(opened.collate([item]))) for item in items]
    )
    expected = transformers_rows(task, checkpoint, opened)
    expectation = RECIPES[recipe].encoder
    assert expectation is not None
    assert cosines(alone, expected).mean() >= expectation.cosine
    change = np.linalg.norm(together - alone, axis=1) / np.linalg.norm(alone, axis=1)
    assert change.max() < expectation.batch_change
    if recipe == "fp32":
        # Sums in another order; vectors and probabilities are of the size of 1.
        np.testing.assert_allclose(alone, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(together, expected, rtol=0, atol=1e-5)


def open_task(name: str, checkpoint: Checkpoint, folder: Path) -> EncoderTask:
    folder.mkdir()
    TASKS[name].prepare(checkpoint, folder)
    task: EncoderTask = TASKS[name].open(folder, LIMIT)
    return task


def transformers_rows(
    task: str, checkpoint: Checkpoint, opened: EncoderTask
) -> NDArray[np.float32]:
    """What transformers gives for each text alone, without padding, cut to the same tokens."""
    model = MODELS[task].from_pretrained(checkpoint.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    rows = []
    for text in TEXTS:
        encoded = tokenizer(
            text, truncation=True, max_length=opened.max_tokens, return_tensors="pt"
        )
        with torch.inference_mode():
            output = model(input_ids=encoded["input_ids"])
        if task == "classification":
            rows.append(output.logits[0].softmax(-1).numpy())
        else:
            mean = output.last_hidden_state[0].mean(0).numpy()
            rows.append(mean / np.linalg.norm(mean))
    return np.stack(rows)


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: NDArray[np.float32] = (a * b).sum(1) / lengths
    return found


def test_every_family_is_met_or_named() -> None:
    assert not {*BEYOND} & {*ENCODERS, *DECODERS}
    assert {family for family, _ in REFUSED} <= {*ENCODERS, *DECODERS}


@pytest.mark.parametrize("family", sorted(READS_PADDING - {"fnet", "reformer"}))
def test_what_reads_padding_is_found_out_by_its_answers(family: str, tmp_path: Path) -> None:
    """Those that are refused by name deserve it, and a stranger's like them is refused as well."""
    save_family(tmp_path / "model", family, "embeddings")
    batch = padded_batch([30, 9, 4])
    batch = {**batch, "input_ids": batch["input_ids"] % 250}
    with pytest.raises(ConfigError, match="padding changes what"):
        prepare("torch", "fp32", Checkpoint(tmp_path / "model"), Pooled(), tmp_path / "out", batch)


def test_a_block_sparse_model_is_served_with_full_attention(tmp_path: Path) -> None:
    save_family(tmp_path, "big_bird", "embeddings", attention_type="original_full")
    checkpoint = Checkpoint(tmp_path)
    check = TASKS["embeddings"].check
    assert check is not None
    check(checkpoint, read_config(checkpoint))


@pytest.mark.parametrize("task", MODELS)
def test_a_model_of_many_languages_needs_one(tmp_path: Path, task: str) -> None:
    save_family(tmp_path, "xmod", task)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "default_language": None}))
    check = TASKS[task].check
    assert check is not None
    with pytest.raises(ConfigError, match="no default_language"):
        check(Checkpoint(tmp_path), read_config(Checkpoint(tmp_path)))
