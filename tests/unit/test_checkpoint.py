"""Where sources are found, what is refused, and what the headers of the weights say."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from safetensors.numpy import save_file

from serving.checkpoint import find_checkpoint, position_limit, weight_shapes
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


@pytest.fixture
def hub(checkpoint_folder: Path, monkeypatch) -> list[tuple[str, dict]]:
    """The hub without a network: answers ``checkpoint_folder`` and notes every call."""
    calls = []

    def snapshot_download(repo: str, **arguments) -> str:
        calls.append((repo, arguments))
        return str(checkpoint_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return calls


def refusal(source: object) -> str:
    """The reason for which ``source`` is refused, without the prefix that every message has."""
    with pytest.raises(SourceError) as caught:
        find_checkpoint("minilm", str(source))
    prefix = f"model 'minilm': source {str(source)!r}: "
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


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
    assert refusal(checkpoint_folder) == f"no *.safetensors in {checkpoint_folder}"


def test_pickled_weights_are_refused_and_named(checkpoint_folder: Path) -> None:
    (checkpoint_folder / "model.safetensors").rename(checkpoint_folder / "pytorch_model.bin")
    (checkpoint_folder / "more.pt").touch()
    expected = "it holds more.pt, pytorch_model.bin, which is not loaded"
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


def test_a_hub_id_is_fetched_at_its_revision(hub, checkpoint_folder: Path) -> None:
    found = find_checkpoint("minilm", "hf:org/name-1.0@refs/pr/1")
    assert found == Checkpoint(checkpoint_folder)
    [(repo, arguments)] = hub
    assert (repo, arguments["revision"]) == ("org/name-1.0", "refs/pr/1")


def test_only_safe_files_are_fetched(hub) -> None:
    find_checkpoint("minilm", "hf:org/name@main")
    [(_, arguments)] = hub
    assert "*.safetensors" in arguments["allow_patterns"]
    assert not {"*", "*.bin", "*.py", "*.pt"} & set(arguments["allow_patterns"])


def test_code_is_fetched_only_by_leave(hub) -> None:
    find_checkpoint("minilm", "hf:org/name@main", trust_remote_code=True)
    [(_, arguments)] = hub
    assert "*.py" in arguments["allow_patterns"]


@pytest.mark.parametrize(
    "source", ["hf:org/name", "hf:org/name@", "hf:name@main", "hf:a/b/c@main", "hf:", "hf:o/n@a b"]
)
def test_a_hub_id_without_organisation_or_revision_is_refused(hub, source: str) -> None:
    assert refusal(source) == "expected hf:org/name@revision (a commit, tag or branch)"
    assert hub == []


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


def test_a_fetched_folder_is_checked_like_any_other(hub, checkpoint_folder: Path) -> None:
    (checkpoint_folder / "model.safetensors").unlink()
    assert refusal("hf:org/name@main") == f"no *.safetensors in {checkpoint_folder}"


def test_shapes_come_from_every_safetensors_file(checkpoint_folder: Path) -> None:
    save_file({"head.weight": np.zeros((2, 4), np.float32)}, checkpoint_folder / "z.safetensors")
    shapes = {shape.name: shape for shape in weight_shapes(Checkpoint(checkpoint_folder))}
    assert {name: shape.shape for name, shape in shapes.items()} == {
        **TENSORS,
        "head.weight": (2, 4),
    }
    assert [name for name, shape in shapes.items() if shape.is_embedding] == [
        "embeddings.word_embeddings.weight"
    ]


def test_a_vector_is_no_embedding_table(tmp_path: Path) -> None:
    save_file({"embeddings.LayerNorm.bias": np.zeros(4, np.float32)}, tmp_path / "a.safetensors")
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


@pytest.mark.parametrize(
    ("config", "expected"), [('{"max_position_embeddings": 64}', 64), ('{"a": 1}', None)]
)
def test_positions_are_those_that_the_config_says(
    checkpoint_folder: Path, config: str, expected: int | None
) -> None:
    (checkpoint_folder / "config.json").write_text(config)
    assert position_limit(Checkpoint(checkpoint_folder)) == expected


def test_a_gguf_file_says_no_positions(gguf_file: Path) -> None:
    assert position_limit(Checkpoint(gguf_file.parent, gguf_file.name)) is None


def test_a_config_that_is_no_json_is_refused(checkpoint_folder: Path) -> None:
    (checkpoint_folder / "config.json").write_text("{")
    with pytest.raises(SourceError, match=r"config\.json: cannot be read"):
        position_limit(Checkpoint(checkpoint_folder))
