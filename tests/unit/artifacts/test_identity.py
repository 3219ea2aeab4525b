"""What changes an artifact's identity, and what does not."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from serving.artifacts import ArtifactRequest, ArtifactStore, ensure, identity, key_of
from serving.artifacts.key import ArtifactKey
from serving.errors import ConfigError, SourceError
from serving.seams import Checkpoint
from tests.unit.paper import Paper


def test_a_key_is_the_same_tomorrow_and_in_another_process(
    paper: Paper, store: ArtifactStore
) -> None:
    key = key_of(paper.request(), store)
    again = key_of(pickle.loads(pickle.dumps(paper.request())), store)
    assert again == key
    assert again.id == key.id
    assert ArtifactKey.model_validate_json(key.model_dump_json()).id == key.id


def test_an_id_does_not_depend_on_the_order_of_options() -> None:
    def key(options: dict[str, int]) -> ArtifactKey:
        return ArtifactKey(
            source="s",
            task="t",
            recipe="r",
            options=options,
            runtime="u",
            versions={},
            device="cpu",
            instructions="avx2",
        )

    assert key({"a": 1, "b": 2}).id == key({"b": 2, "a": 1}).id
    # Written down, since stores outlive versions: where this changes, every artifact is made anew.
    assert key({}).id == "f54c2b8ef98fe15ccbaf63f1e07d8993"


def test_names_for_people_are_no_part_of_it(paper: Paper, store: ArtifactStore) -> None:
    request = paper.request(model="other", variant="name", preparing_bytes=7)
    assert key_of(request, store) == key_of(paper.request(), store)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "embeddings"},
        {"recipe": "fp32"},
        {"options": {"folds": 2}},
        {"kv_cache": "int8"},
    ],
)
def test_what_is_asked_for_is_part_of_it(
    paper: Paper, store: ArtifactStore, changes: dict[str, Any]
) -> None:
    assert key_of(paper.request(**changes), store).id != key_of(paper.request(), store).id


def test_another_version_is_another_artifact(paper: Paper, store: ArtifactStore) -> None:
    first = ensure(paper.request(), store)
    paper.update("1.1")
    second = ensure(paper.request(), store)
    assert first.id != second.id
    assert paper.tries == 2
    assert second.manifest.key.versions["paper"] == "1.1"
    assert set(store.ids()) == {first.id, second.id}


def test_our_own_version_is_part_of_it(paper: Paper, store: ArtifactStore) -> None:
    assert key_of(paper.request(), store).versions.keys() == {"quantserve", "paper"}


def test_another_instruction_set_is_another_artifact(
    paper: Paper, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = key_of(paper.request(), store)
    monkeypatch.setattr(identity, "instructions_of", lambda device: "sse")
    there = key_of(paper.request(), store)
    assert there.instructions == "sse"
    assert there.id != here.id


@pytest.mark.parametrize("data", ["other count", "other inputs"])
def test_what_calibrates_is_part_of_it(
    paper: Paper, store: ArtifactStore, tmp_path: Path, data: str
) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"input": "one"}\n' * 12)
    before = key_of(paper.measured(path=file), store)
    if data == "other inputs":
        file.write_text('{"input": "two"}\n' * 12)
    after = key_of(paper.measured(path=file, count=7 if data == "other count" else 8), store)
    assert before.id != after.id


def test_a_device_that_is_not_here_is_refused(paper: Paper, store: ArtifactStore) -> None:
    with pytest.raises(ConfigError, match="device is cuda"):
        key_of(paper.request(wanted_device="cuda"), store)


class TestSource:
    """The digest of a checkpoint's files."""

    @staticmethod
    def source(request: ArtifactRequest, store: ArtifactStore) -> str:
        return key_of(request, store).source

    def test_the_place_of_a_checkpoint_is_no_part_of_it(
        self, paper: Paper, store: ArtifactStore, tmp_path: Path
    ) -> None:
        here = self.source(paper.request(), store)
        paper.checkpoint.folder.rename(tmp_path / "moved")
        moved = paper.request(checkpoint=Checkpoint(tmp_path / "moved"))
        assert self.source(moved, store) == here

    @pytest.mark.parametrize(
        ("name", "counts"),
        [
            ("tokenizer.json", True),
            ("vocab.txt", True),
            ("chat_template.jinja", True),
            ("README.md", False),
            ("pytorch_model.bin", False),
            ("consolidated.safetensors", False),
            ("modeling_own.py", False),
            ("checkpoint-500/model.safetensors", False),
        ],
    )
    def test_only_files_that_are_read_count(
        self, paper: Paper, store: ArtifactStore, name: str, counts: bool
    ) -> None:
        before = self.source(paper.request(), store)
        file = paper.checkpoint.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}")
        assert (self.source(paper.request(), store) != before) == counts

    def test_code_counts_where_it_is_trusted(self, paper: Paper, store: ArtifactStore) -> None:
        request = paper.request(checkpoint=Checkpoint(paper.checkpoint.folder, None, True))
        before = self.source(request, store)
        (paper.checkpoint.folder / "modeling_own.py").write_text("x = 1")
        assert self.source(request, store) != before

    def test_modules_of_sentence_transformers_count(
        self, paper: Paper, store: ArtifactStore
    ) -> None:
        folder = paper.checkpoint.folder
        (folder / "modules.json").write_text('[{"path": ""}, {"path": "1_Pooling"}]')
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text("{}")
        before = self.source(paper.request(), store)
        (folder / "1_Pooling" / "config.json").write_text('{"a": 1}')
        assert self.source(paper.request(), store) != before

    def test_weights_of_the_same_size_and_time_are_told_apart(
        self, paper: Paper, store: ArtifactStore
    ) -> None:
        file = paper.checkpoint.folder / "model.safetensors"
        before, status = self.source(paper.request(), store), file.stat()
        save_file({"layer.weight": np.ones((8, 7), np.float32)}, file)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert self.source(paper.request(), store) != before

    def test_a_file_that_has_settled_is_read_once(
        self, paper: Paper, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from serving.artifacts import source_digest

        monkeypatch.setattr(source_digest, "SETTLED_AFTER_S", -1)
        before = self.source(paper.request(), store)

        def refuse(path: Path) -> str:
            raise AssertionError(f"{path} is read again")

        monkeypatch.setattr(source_digest, "file_digest", refuse)
        assert self.source(paper.request(), store) == before

    @pytest.mark.parametrize("content", ["{", "[]", "{}"])
    def test_digests_that_cannot_be_read_are_found_anew(
        self, paper: Paper, store: ArtifactStore, content: str
    ) -> None:
        before = self.source(paper.request(), store)
        (store.folder / "digests.json").write_text(content)
        assert self.source(paper.request(), store) == before

    def test_a_source_that_is_not_on_this_node_is_refused(
        self, paper: Paper, store: ArtifactStore, tmp_path: Path
    ) -> None:
        request = paper.request(checkpoint=Checkpoint(tmp_path / "elsewhere"))
        with pytest.raises((ConfigError, SourceError), match="elsewhere"):
            key_of(request, store)
