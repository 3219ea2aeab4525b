"""The store as a folder: its rights, what it finds, and what is cleared away."""

import errno
import os
import tempfile
import threading
import time
from pathlib import Path

import pytest

from serving.artifacts import ArtifactStore, ensure
from serving.artifacts.exclusive_lock import try_lock
from serving.artifacts.pruning import StoredArtifact, beyond_size, survey, unused_since
from serving.errors import ConfigError, DamagedArtifact, MayPass
from tests.unit.paper import Paper


def test_a_store_is_for_its_owner_only(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "deep" / "store")
    assert store.folder.stat().st_mode & 0o777 == 0o700


def test_an_artifact_is_for_its_owner_only(paper: Paper, store: ArtifactStore) -> None:
    assert ensure(paper.request(), store).folder.stat().st_mode & 0o777 == 0o700


def test_a_tilde_stands_for_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ArtifactStore(Path("~/artifacts")).folder == tmp_path / "artifacts"


def test_a_folder_that_cannot_be_made_names_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MayPass, match=r"artifacts\.folder: .*/file/store: "):
        ArtifactStore(tmp_path / "file" / "store")


def test_what_is_wrong_in_a_manifest_is_named(paper: Paper, store: ArtifactStore) -> None:
    artifact = ensure(paper.request(), store)
    manifest = artifact.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seconds"', '"minutes"'))
    with pytest.raises(DamagedArtifact, match=r"manifest\.json: (.|\n)*minutes: unknown key"):
        store.look_up(artifact.id)


def test_an_id_may_be_given_by_its_beginning(paper: Paper, store: ArtifactStore) -> None:
    first = ensure(paper.request(), store).id
    second = ensure(paper.request(options={"folds": 2}), store).id
    assert store.resolve(first[:8]) == first
    assert store.resolve(second) == second
    with pytest.raises(ConfigError, match="no artifact starts with 'xyzxyzxyz'"):
        store.resolve("xyzxyzxyz")
    # A single digit may be unique, and is hardly meant.
    for short in ("", first[:7]):
        with pytest.raises(ConfigError, match="at least the first 8 digits"):
            store.resolve(short)


def test_a_link_in_the_place_of_an_artifact_is_replaced(
    paper: Paper, store: ArtifactStore, tmp_path: Path
) -> None:
    artifact = ensure(paper.request(), store)
    elsewhere = tmp_path / "elsewhere"
    artifact.folder.rename(elsewhere)
    (elsewhere / "manifest.json").write_text("{}")
    artifact.folder.symlink_to(elsewhere)
    assert ensure(paper.request(), store).id == artifact.id
    assert not artifact.folder.is_symlink()
    assert (elsewhere / "manifest.json").read_text() == "{}"


def test_a_find_counts_as_use(paper: Paper, store: ArtifactStore) -> None:
    artifact = ensure(paper.request(), store)
    os.utime(artifact.folder / "manifest.json", (1, 1))
    assert store.last_used(artifact.id) == 1
    ensure(paper.request(), store)
    assert store.last_used(artifact.id) > time.time() - 60


def test_cleaning_spares_what_is_being_made(paper: Paper, store: ArtifactStore) -> None:
    dead, busy = "a" * 32, "b" * 32
    for artifact_id in (dead, busy):
        for kind in ("unfinished", "discarded"):
            (store.folder / f"{artifact_id}.x.{kind}").mkdir()
    (store.folder / f"{dead}.log").touch()
    artifact = ensure(paper.request(), store)
    handle = try_lock(store.folder / f"{busy}.lock")
    assert handle is not None
    store.clean()
    left = {path.name for path in store.folder.iterdir()} - {"digests.json"}
    assert left == {
        artifact.id,
        f"{busy}.lock",
        f"{busy}.x.unfinished",
        f"{busy}.x.discarded",
    }
    os.close(handle)


def test_a_survey_begins_with_the_least_recently_used(paper: Paper, store: ArtifactStore) -> None:
    ids = [ensure(paper.request(options={"folds": folds}), store).id for folds in (1, 2, 3)]
    for artifact_id, moment in zip(ids, (30, 10, 20), strict=True):
        os.utime(store.folder / artifact_id / "manifest.json", (moment, moment))
    (store.folder / ids[2] / "weights" / "first.bin").unlink()
    stored = survey(store)
    assert [one.id for one in stored] == [ids[1], ids[2], ids[0]]
    assert [one.size > 0 for one in stored] == [True, False, True]


STORED = [
    StoredArtifact("old", 30, 10.0),
    StoredArtifact("mid", 20, 20.0),
    StoredArtifact("new", 50, 30.0),
]


@pytest.mark.parametrize(
    ("moment", "going"), [(10, []), (10.5, ["old"]), (100, ["old", "mid", "new"])]
)
def test_what_was_not_used_since_a_moment_goes(moment: float, going: list[str]) -> None:
    assert unused_since(STORED, moment) == going


@pytest.mark.parametrize(
    ("at_most", "going"),
    [(100, []), (99, ["old"]), (70, ["old"]), (69, ["old", "mid"]), (0, ["old", "mid", "new"])],
)
def test_the_least_recently_used_go_until_the_rest_fits(at_most: int, going: list[str]) -> None:
    assert beyond_size(STORED, at_most) == going
    assert beyond_size(STORED[::-1], at_most) == going


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    store, artifact_id = ArtifactStore(tmp_path), "0" * 32
    (tmp_path / f"{artifact_id}.lock").mkdir()  # which keeps even root from writing
    expected = rf"artifacts\.folder: {tmp_path} cannot be written: Is a directory"
    with pytest.raises(MayPass, match=expected), store.lock(artifact_id, threading.Event()):
        pass


def test_a_disk_that_is_too_full_to_remove_from_is_named(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(MayPass, match="cannot be written: No space left on device"):
        store.remove("0" * 32)
    assert list(store.folder.iterdir()) == []
