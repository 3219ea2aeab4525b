"""``quantserve artifacts`` lists, removes and prunes what a store holds."""

import errno
import io
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from serving.app.plan import make_plan
from serving.artifacts import (
    AgreementFloor,
    Artifact,
    ArtifactStore,
    CalibrationOrigin,
    ensure,
    key_of,
)
from serving.artifacts.pruning import survey
from serving.cli.artifacts import store_table
from serving.cli.console import mebibytes
from serving.settings import load_config
from tests.unit.cli.conftest import Run
from tests.unit.conftest import WriteConfig
from tests.unit.paper import Paper

DAY_S = 24 * 60 * 60


@pytest.fixture
def three(paper: Paper, store: ArtifactStore) -> list[Artifact]:
    """Artifacts that were used three days, two days and one day ago."""
    artifacts = []
    for folds in (1, 2, 3):
        artifact = ensure(paper.request(f"f{folds}", options={"folds": folds}), store)
        moment = time.time() - (4 - folds) * DAY_S + 60
        os.utime(artifact.folder / "manifest.json", (moment, moment))
        artifacts.append(artifact)
    return artifacts


def test_a_list_has_a_line_for_each(run: Run, three: list[Artifact], store: ArtifactStore) -> None:
    (three[1].folder / "manifest.json").write_text("{")
    result = run("artifacts", "list", "--folder", store.folder)
    assert result.exit_code == 0
    for artifact in (three[0], three[2]):
        [line] = [line for line in result.stdout.splitlines() if artifact.id[:8] in line]
        assert f"{artifact.manifest.made_for}, folded, paper, cpu" in line
    [line] = [line for line in result.stdout.splitlines() if three[1].id[:8] in line]
    assert "damaged" in line
    assert "3 artifacts, " in result.stdout


def test_what_cannot_be_read_now_is_not_called_damaged(
    run: Run, three: list[Artifact], store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.parent == three[1].folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    result = run("artifacts", "list", "--folder", store.folder)
    assert result.exit_code == 0
    assert "cannot be read: Permission denied" in " ".join(result.stdout.split())
    assert "damaged" not in result.stdout
    assert "3 artifacts, " in result.stdout


def test_a_list_is_whole_at_80_columns(three: list[Artifact], store: ArtifactStore) -> None:
    screen = Console(width=80, record=True, file=io.StringIO())
    screen.print(store_table(store, survey(store)))
    text = screen.export_text()
    assert "…" not in text
    for artifact, one in zip(three, survey(store), strict=True):
        [line] = [line for line in text.splitlines() if artifact.id[:8] in line]
        used = datetime.fromtimestamp(one.last_used, UTC).strftime("%Y-%m-%d")
        assert f"{artifact.manifest.made_for}, folded, paper, cpu" in line
        assert line.split()[-2:] == [used, mebibytes(one.size)]


@pytest.fixture
def measured(paper: Paper, store: ArtifactStore, tmp_path: Path) -> Artifact:
    """An artifact with a floor that it reaches."""
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(f'{{"input": "text {n}"}}\n' for n in range(50)))
    origin = CalibrationOrigin(
        name="texts.jsonl", path=file, is_labelled=False, count=300, holds_out=True
    )
    reference = paper.request("reference", options={"folds": 1})
    floor = AgreementFloor(least=0.9, origin=origin, reference=reference)
    return ensure(paper.request("held", floor=floor), store)


def test_a_list_has_what_was_measured(measured: Artifact, store: ArtifactStore) -> None:
    screen = Console(width=80, record=True, file=io.StringIO())
    screen.print(store_table(store, survey(store)))
    lines = screen.export_text().splitlines()
    [line] = [line for line in lines if measured.id[:8] in line]
    assert "origami:held, folded, paper, cpu, cosine 1.0000" in line
    [reference] = [one for one in store.ids() if one != measured.id]
    [line] = [line for line in lines if reference[:8] in line]
    assert "cosine" not in line


def test_the_beginning_of_an_id_is_enough_to_remove_it(
    run: Run, three: list[Artifact], store: ArtifactStore
) -> None:
    result = run("artifacts", "remove", three[0].id[:10], three[1].id, "--folder", store.folder)
    assert result.exit_code == 0
    assert store.ids() == [three[2].id]
    assert "2 artifacts removed" in result.stdout


def test_an_id_that_is_not_there_removes_nothing(
    run: Run, three: list[Artifact], store: ArtifactStore
) -> None:
    result = run("artifacts", "remove", three[0].id, "xyzxyzxyz", "--folder", store.folder)
    assert result.exit_code == 1
    assert "no artifact starts with 'xyzxyzxyz'" in result.stderr
    assert len(store.ids()) == 3


@pytest.mark.parametrize(
    ("options", "staying"),
    [
        (["--older-than", "2.5"], [1, 2]),
        (["--older-than", "1.5"], [2]),
        (["--older-than", "10"], [0, 1, 2]),
        (["--max-size", "0.000002"], [2]),
        (["--max-size", "1"], [0, 1, 2]),
        (["--older-than", "2.5", "--max-size", "0.000002"], [2]),
    ],
)
def test_what_is_old_or_too_much_goes(
    run: Run, three: list[Artifact], store: ArtifactStore, options: list[str], staying: list[int]
) -> None:
    result = run("artifacts", "prune", *options, "--folder", store.folder)
    assert result.exit_code == 0
    assert store.ids() == sorted(three[index].id for index in staying)
    assert f"{3 - len(staying)} artifacts removed" in result.stdout


def test_what_no_configuration_uses_goes(
    run: Run,
    three: list[Artifact],
    store: ArtifactStore,
    write_config: WriteConfig,
) -> None:
    variant = "{name: x, recipe: folded, runtime: paper, options: {folds: 2}}"
    config = write_config(f"[{variant}]", "letters")
    result = run("artifacts", "prune", "--unused", config, "--folder", store.folder)
    assert result.exit_code == 0
    assert store.ids() == [three[1].id]


def test_what_a_variant_is_measured_against_is_used(
    run: Run, three: list[Artifact], store: ArtifactStore, write_config: WriteConfig
) -> None:
    variant = "{name: x, recipe: folded, runtime: paper, min_agreement: 0.9"
    config = write_config(f"[{variant}, calibration: {{data: probes}}}}]")
    [planned] = make_plan(load_config(config)).variants
    assert planned.artifact.floor is not None
    used = [key_of(planned.artifact, store), key_of(planned.artifact.floor.reference, store)]
    for key in used:
        (store.folder / key.id).mkdir()
    result = run("artifacts", "prune", "--unused", config, "--folder", store.folder)
    assert result.exit_code == 0
    assert store.ids() == sorted(key.id for key in used)


def test_pruning_clears_away_what_the_dead_left(run: Run, store: ArtifactStore) -> None:
    (store.folder / f"{'a' * 32}.x.unfinished").mkdir()
    result = run("artifacts", "prune", "--older-than", "1", "--folder", store.folder)
    assert result.exit_code == 0
    assert list(store.folder.iterdir()) == []


def test_pruning_nothing_in_particular_is_refused(run: Run, store: ArtifactStore) -> None:
    result = run("artifacts", "prune", "--folder", store.folder)
    assert result.exit_code == 1
    assert "say what may go: --older-than DAYS" in result.stderr


@pytest.mark.parametrize(
    "command", [["list"], ["remove", "0123abcd"], ["prune", "--max-size", "1"]]
)
def test_a_store_that_is_not_there_is_said_and_not_made(
    run: Run, tmp_path: Path, command: list[str]
) -> None:
    result = run("artifacts", *command, "--folder", tmp_path / "mistyped")
    assert result.exit_code == 1
    assert f"error: {tmp_path / 'mistyped'}: there is no store" in result.stderr
    assert not (tmp_path / "mistyped").exists()


def test_a_file_is_no_store(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("artifacts", "list", "--folder", tmp_path / "file")
    assert result.exit_code == 1
    assert f"artifacts.folder: {tmp_path / 'file'} is a file; name a folder" in result.stderr
