"""Where sources are found, what is refused, and what the headers of the weights say."""

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from safetensors.numpy import save_file

from serving.checkpoint import (
    find_checkpoint,
    read_config,
    source_files,
    weight_files,
    weight_shapes,
)
from serving.errors import SourceError
from serving.seams import Checkpoint, WeightShape
from tests.unit.conftest import TENSORS


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    """A real GGUF file with an embedding table of 5×4 and a matrix of 2×3."""
    file = tmp_path / "tiny.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_tensor("token_embd.weight", np.zeros((5, 4), np.float32))
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((2, 3), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture
def package(tmp_path: Path, checkpoint_folder: Path, monkeypatch) -> Path:
    """An importable package ``carrier`` that holds a checkpoint in ``weights``."""
    folder = tmp_path / "site" / "carrier"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    checkpoint_folder.rename(folder / "weights")
    monkeypatch.syspath_prepend(folder.parent)
    return folder


def refusal(source: object) -> str:
    """The reason for which ``source`` is refused, without the prefix that every message has."""
    with pytest.raises(SourceError) as caught:
        find_checkpoint("minilm", str(source))
    prefix = f"model 'minilm': source {str(source)!r}: "
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


def no_weights(folder: Path) -> str:
    return f"no model.safetensors in {folder}, nor model.safetensors.index.json"


def test_a_folder_is_found(checkpoint_folder: Path) -> None:
    assert find_checkpoint("minilm", str(checkpoint_folder)) == Checkpoint(checkpoint_folder)


def test_leave_to_run_code_is_passed_on(checkpoint_folder: Path) -> None:
    assert find_checkpoint("minilm", str(checkpoint_folder), True).trust_remote_code


def test_a_tilde_stands_for_the_home_folder(checkpoint_folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(checkpoint_folder.parent))
    found = find_checkpoint("minilm", f"~/{checkpoint_folder.name}")
    assert found.folder == checkpoint_folder


def test_a_gguf_file_is_found(gguf_file: Path) -> None:
    assert find_checkpoint("m", str(gguf_file)) == Checkpoint(gguf_file.parent, "tiny.gguf")


def test_a_folder_inside_a_package_is_found_without_importing_it(package: Path) -> None:
    found = find_checkpoint("minilm", "package:carrier/weights")
    assert found == Checkpoint(package / "weights")


def test_a_gguf_file_inside_a_package_is_found(package: Path, gguf_file: Path) -> None:
    gguf_file.rename(package / "weights" / "tiny.gguf")
    found = find_checkpoint("smollm2", "package:carrier/weights/tiny.gguf")
    assert found == Checkpoint(package / "weights", "tiny.gguf")
    assert len(weight_shapes(found)) == 2


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent") == f"no folder {tmp_path / 'absent'}"


def test_a_missing_gguf_file_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent.gguf") == f"no GGUF file {tmp_path / 'absent.gguf'}"


def test_a_folder_without_a_config_is_refused(checkpoint_folder: Path) -> None:
    (checkpoint_folder / "config.json").unlink()
    assert refusal(checkpoint_folder) == f"no config.json in {checkpoint_folder}"


def test_a_folder_without_weights_is_refused(checkpoint_folder: Path) -> None:
    (checkpoint_folder / "model.safetensors").unlink()
    assert refusal(checkpoint_folder) == no_weights(checkpoint_folder)


def test_pickled_weights_are_refused_and_named(checkpoint_folder: Path) -> None:
    (checkpoint_folder / "model.safetensors").rename(checkpoint_folder / "pytorch_model.bin")
    (checkpoint_folder / "more.pt").touch()
    (checkpoint_folder / "other.safetensors").touch()
    expected = "it holds more.pt, other.safetensors, pytorch_model.bin, which is not loaded"
    assert refusal(checkpoint_folder).endswith(expected)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("package:carrier/../outside", "the path may not leave the package"),
        ("package:carrier/weights/../..", "the path may not leave the package"),
        ("package:no_such_package_here/weights", "no Python package 'no_such_package_here'"),
        ("package:json.decoder/weights", "no Python package 'json.decoder' is installed"),
        ("package:", "expected package:import_name/path"),
        ("package:/weights", "expected package:import_name/path"),
        ("package:../weights", "expected package:import_name/path"),
        ("package:__main__/weights", "no Python package '__main__' is installed"),
        ("package:this/weights", "no Python package 'this' is installed"),
        ("package:carrier/absent", "no folder "),
        ("package:carrier/absent.gguf", "no GGUF file "),
        ("package:no_such_package_here/a.gguf", "no Python package 'no_such_package_here'"),
        ("package:carrier", "no config.json in "),
    ],
)
def test_a_wrong_package_source_is_refused(package: Path, source: str, expected: str) -> None:
    assert refusal(source).startswith(expected)


def test_an_absolute_path_may_not_leave_the_package(package: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (package / "weights").rename(outside)
    assert refusal(f"package:carrier/{outside}") == "the path may not leave the package"


@pytest.mark.parametrize(
    "source", ["hf:org/name", "hf:org/name@", "hf:name@main", "hf:a/b/c@main", "hf:", "hf:o/n@a b"]
)
def test_a_hub_id_without_organisation_or_revision_is_refused(source: str) -> None:
    assert refusal(source) == "expected hf:org/name@revision (a commit, tag or branch)"


@pytest.mark.parametrize(
    ("error", "expected"),
    [(OSError("no route\nto host"), "no route"), (KeyError(), "KeyError"), (OSError(" "), "OSErr")],
)
def test_a_failed_fetch_is_told_in_one_line(monkeypatch, error: Exception, expected: str) -> None:
    def fail(repo: str, **arguments) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    told = refusal("hf:org/name@main")
    assert told.startswith(f"cannot be fetched from the hub: {expected}")
    assert "\n" not in told


def write_shards(folder: Path) -> None:
    """Replace the weights by two files and an index of them."""
    (folder / "model.safetensors").unlink()
    save_file({"embed.weight": np.zeros((5, 4), np.float16)}, folder / "a.safetensors")
    save_file({"head.weight": np.zeros((2, 4), np.float32)}, folder / "b.safetensors")
    index = {"weight_map": {"embed.weight": "a.safetensors", "head.weight": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shapes_and_types_come_from_the_headers(checkpoint_folder: Path) -> None:
    shapes = weight_shapes(Checkpoint(checkpoint_folder))
    assert {shape.name: shape.shape for shape in shapes} == TENSORS
    assert {shape.dtype for shape in shapes} == {"F32"}
    assert [shape.name for shape in shapes if shape.is_embedding] == [
        "embeddings.word_embeddings.weight"
    ]


@pytest.mark.parametrize(
    ("name", "is_table"),
    [
        ("model.embed_tokens.weight", True),
        ("embeddings.position_embeddings.weight", True),
        ("gpt_neox.embed_in.weight", True),
        ("wte.weight", True),
        ("transformer.wpe.weight", True),
        ("shared.weight", True),
        ("token_embd.weight", True),
        ("position_embd.weight", True),
        ("embed_out.weight", False),
        ("embeddings_project.weight", False),
        ("embeddings.embed_proj.weight", False),
        ("encoder.embedding_hidden_mapping_in.weight", False),
        ("embeddings.projection.weight", False),
        ("mlp.shared_expert.gate_proj.weight", False),
        ("lm_head.weight", False),
    ],
)
def test_tables_of_embeddings_are_told_by_their_own_names(
    tmp_path: Path, name: str, is_table: bool
) -> None:
    save_file({name: np.zeros((4, 4), np.float32)}, tmp_path / "model.safetensors")
    [shape] = weight_shapes(Checkpoint(tmp_path))
    assert shape.is_embedding == is_table


def test_shards_are_those_that_the_index_names(checkpoint_folder: Path) -> None:
    write_shards(checkpoint_folder)
    save_file({"embed.weight": np.zeros((5, 4))}, checkpoint_folder / "consolidated.safetensors")
    found = find_checkpoint("minilm", str(checkpoint_folder))
    assert weight_shapes(found) == [
        WeightShape("embed.weight", (5, 4), is_embedding=True, dtype="F16"),
        WeightShape("head.weight", (2, 4), is_embedding=False, dtype="F32"),
    ]


def test_a_second_copy_of_the_weights_does_not_count(checkpoint_folder: Path) -> None:
    whole = (checkpoint_folder / "model.safetensors").read_bytes()
    write_shards(checkpoint_folder)
    (checkpoint_folder / "model.safetensors").write_bytes(whole)
    shapes = weight_shapes(Checkpoint(checkpoint_folder))
    assert {shape.name: shape.shape for shape in shapes} == TENSORS


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ('{"weight_map": {"a": "absent.safetensors"}}', "names files that are missing: absent"),
        ('{"weights": {}}', "no weight_map"),
        ('{"weight_map": ["a"]}', "no weight_map"),
        ("[]", "expected an object"),
        ("{", "cannot be read"),
    ],
)
def test_an_index_that_is_wrong_is_refused(checkpoint_folder: Path, index: str, said: str) -> None:
    write_shards(checkpoint_folder)
    (checkpoint_folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(SourceError, match=rf"index\.json: .*{said}"):
        weight_files(Checkpoint(checkpoint_folder))


def test_files_of_a_source_are_those_that_are_read(checkpoint_folder: Path) -> None:
    for name in ("tokenizer.json", "chat_template.jinja", "README.md", "model.bin", "own.py"):
        (checkpoint_folder / name).touch()
    (checkpoint_folder / "modules.json").write_text('[{"path": ""}, {"path": "2_Dense"}]')
    for folder in ("2_Dense", "checkpoint-500", "additional_chat_templates"):
        (checkpoint_folder / folder).mkdir()
        for name in ("config.json", "model.safetensors", "rag.jinja"):
            (checkpoint_folder / folder / name).touch()
    found = {
        str(file.relative_to(checkpoint_folder))
        for file in source_files(Checkpoint(checkpoint_folder))
    }
    assert found == {
        "config.json",
        "model.safetensors",
        "modules.json",
        "tokenizer.json",
        "chat_template.jinja",
        "additional_chat_templates/rag.jinja",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "2_Dense/rag.jinja",
    }
    trusted = source_files(Checkpoint(checkpoint_folder, None, True))
    assert checkpoint_folder / "own.py" in trusted


@pytest.mark.parametrize("modules", ["{", '[{"name": "0"}]', "[1]"])
def test_modules_that_cannot_be_read_are_refused(checkpoint_folder: Path, modules: str) -> None:
    (checkpoint_folder / "modules.json").write_text(modules)
    with pytest.raises(SourceError, match=r"modules\.json: cannot be read"):
        source_files(Checkpoint(checkpoint_folder))


def test_a_gguf_file_is_its_own_source(gguf_file: Path) -> None:
    assert source_files(Checkpoint(gguf_file.parent, gguf_file.name)) == [gguf_file]


def test_a_vector_is_no_embedding_table(tmp_path: Path) -> None:
    tensors = {"embeddings.LayerNorm.bias": np.zeros(4, np.float32)}
    save_file(tensors, tmp_path / "model.safetensors")
    [shape] = weight_shapes(Checkpoint(tmp_path))
    assert shape == WeightShape("embeddings.LayerNorm.bias", (4,), is_embedding=False)


def test_shapes_of_a_gguf_file_are_outermost_first(gguf_file: Path) -> None:
    assert weight_shapes(Checkpoint(gguf_file.parent, gguf_file.name)) == [
        WeightShape("token_embd.weight", (5, 4), is_embedding=True),
        WeightShape("blk.0.attn_q.weight", (2, 3), is_embedding=False),
    ]


@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf"])
def test_weights_that_are_no_weights_are_refused(checkpoint_folder: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (checkpoint_folder / name).write_text(pointer)
    gguf = name if name.endswith(".gguf") else None
    with pytest.raises(SourceError, match=name):
        weight_shapes(Checkpoint(checkpoint_folder, gguf))


def test_a_config_is_read(checkpoint_folder: Path) -> None:
    (checkpoint_folder / "config.json").write_text('{"max_position_embeddings": 64}')
    assert read_config(Checkpoint(checkpoint_folder)) == {"max_position_embeddings": 64}


def test_a_gguf_file_says_its_architecture(gguf_file: Path) -> None:
    assert read_config(Checkpoint(gguf_file.parent, gguf_file.name)) == {"model_type": "llama"}


@pytest.mark.parametrize("config", ["{", "[]"])
def test_a_config_that_is_no_object_is_refused(checkpoint_folder: Path, config: str) -> None:
    (checkpoint_folder / "config.json").write_text(config)
    with pytest.raises(SourceError, match=r"config\.json: "):
        read_config(Checkpoint(checkpoint_folder))
