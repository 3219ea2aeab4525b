"""What a converted file's tokenizer makes of hard strings, beside the checkpoint's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from serving.demo.prepare import generator_checkpoint
from serving.runtimes.llamacpp.artifact_files import MODEL
from serving.runtimes.llamacpp.preparing import prepare_generator
from serving.runtimes.llamacpp.tokenizer_check import (
    NUM_STRINGS,
    compare_tokenizers,
    hard_strings,
)
from serving.seams import Checkpoint
from tests.unit.runtimes.tiny_generators import prepare_request, save_generator


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny model of random weights with SmolLM2's tokenizer."""
    folder = tmp_path_factory.mktemp("checkpoint")
    packaged = generator_checkpoint()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(
        packaged.folder, gguf_file=packaged.gguf_file, local_files_only=True
    )
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    save_generator(folder, vocab_size=len(tokenizer), **sizes)
    tokenizer.save_pretrained(folder)
    return Checkpoint(folder)


@pytest.fixture(scope="module")
def artifact(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Its file, and what was said of the tokenizer."""
    folder = tmp_path_factory.mktemp("artifact")
    made = prepare_generator(prepare_request("f16", checkpoint, folder))
    (note,) = (note for note in made.notes if "tokenizer" in note)
    return folder / MODEL, note


def number_in(note: str) -> int:
    """How many strings it says that the tokenizers differ on."""
    return int(note.partition("checkpoint's on ")[2].split()[0].replace(",", ""))


def test_where_the_tokenizers_differ_is_told(artifact: tuple[Path, str]) -> None:
    """llama.cpp splits white space before digits otherwise; a stranger's file may do worse."""
    file, note = artifact
    assert file.is_file()
    assert 0 < number_in(note) < 400
    assert f"of {NUM_STRINGS:,} hard strings, such as" in note


def test_another_tokenizer_differs_almost_everywhere(
    checkpoint: Checkpoint, artifact: tuple[Path, str], tmp_path: Path
) -> None:
    file, few = artifact
    content = json.loads((checkpoint.folder / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:100]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    many = compare_tokenizers(file, tmp_path / "tokenizer.json")
    assert number_in(many) > 0.9 * NUM_STRINGS > 10 * number_in(few)


def test_the_strings_are_always_the_same() -> None:
    strings = list(hard_strings())
    assert strings == list(hard_strings())
    assert len(set(strings)) > 0.95 * NUM_STRINGS
