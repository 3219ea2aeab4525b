"""Artifacts are made once, whole or not at all, by processes that may end at any moment."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.artifacts import ArtifactRequest, ArtifactStore, ensure, key_of
from serving.artifacts.ensuring import ensure_key
from serving.errors import ConfigError, MayPass
from tests.unit.paper import Paper

PATIENCE_S = 60

ENSURE = """
import sys
from pathlib import Path
from serving.artifacts import ArtifactRequest, ArtifactStore, ensure
print(ensure(ArtifactRequest.model_validate_json(sys.argv[2]), ArtifactStore(Path(sys.argv[1]))).id)
"""


def start(request: ArtifactRequest, store: ArtifactStore) -> subprocess.Popen[str]:
    """Ensure an artifact in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", ENSURE, str(store.folder), request.model_dump_json()],
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_until(is_so) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def names(store: ArtifactStore) -> set[str]:
    """What lies in the store beside the digests of sources."""
    return {path.name for path in store.folder.iterdir()} - {"digests.json"}


def test_an_artifact_is_made_and_found_again(paper: Paper, store: ArtifactStore) -> None:
    made, found = ensure(paper.request(), store), ensure(paper.request(), store)
    assert made == found
    assert paper.tries == 1
    assert (made.task_folder / "letters.txt").read_text() == "abc"
    assert (made.weights_folder / "first.bin").stat().st_size == 1_000
    manifest = made.manifest
    assert manifest.key == key_of(paper.request(), store)
    assert manifest.key.versions["paper"] == "1.0"
    assert manifest.made_for == "origami:folded"
    assert manifest.source == f"{paper.checkpoint.folder}"
    assert manifest.notes == ("one corner stayed white",)
    assert manifest.weights_bytes == 2_000
    assert manifest.seconds > 0
    assert manifest.peak_bytes > 1_000_000
    assert made.size == sum(
        path.stat().st_size for path in made.folder.rglob("*.*") if path.name != "manifest.json"
    )
    assert names(store) == {made.id}


def test_the_example_goes_from_the_shortest_to_the_longest(
    paper: Paper, store: ArtifactStore
) -> None:
    saw = json.loads((ensure(paper.request(), store).weights_folder / "second.bin").read_text())
    assert [sum(token > 0 for token in row) for row in saw["example"]] == [*range(1, 13)]


def test_a_recipe_that_calibrates_gets_its_inputs_shortest_first(
    paper: Paper, store: ArtifactStore, tmp_path: Path
) -> None:
    data = tmp_path / "texts.jsonl"
    lengths = [1 + index % 12 for index in range(50)]
    data.write_text("".join(json.dumps({"input": "b" * length}) + "\n" for length in lengths))
    artifact = ensure(paper.measured(count=20, path=data), store)
    saw = json.loads((artifact.weights_folder / "second.bin").read_text())
    assert [len(batch) for batch in saw["calibration"]] == [16, 4]
    rows = [sum(token > 0 for token in row) for batch in saw["calibration"] for row in batch]
    assert rows == sorted(lengths[index * 50 // 20] for index in range(20))
    calibration = artifact.manifest.key.calibration
    assert calibration is not None
    assert (calibration.name, calibration.count) == ("probes", 20)
    assert artifact.manifest.notes == (
        "calibrates with the probes that will judge it, which flatters it; give it other data",
        "one corner stayed white",
    )


def test_too_few_inputs_to_calibrate_with_are_said(paper: Paper, store: ArtifactStore) -> None:
    notes = ensure(paper.measured(count=300), store).manifest.notes
    assert notes[0] == "calibrates with 12 inputs of 300 asked for: probes has no more"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("refuse", r"^origami:folded: paper cannot hold \[this\] checkpoint$"),
        ("lack", r"^origami:folded: there is no room to fold in \(.*\.log\)$"),
        ("raise", r"^origami:folded: ValueError: wet paper \(.*\.log\)$"),
        ("kill", r"^origami:folded: the process .* was killed; is the memory enough\?"),
        ("exit", r"^origami:folded: the process .* ended with status 7"),
    ],
)
def test_what_cannot_be_made_is_said_and_leaves_nothing_half(
    paper: Paper, store: ArtifactStore, fault: str, message: str
) -> None:
    paper.configure(fault=fault)
    with pytest.raises(ConfigError, match=message) as raised:
        ensure(paper.request(), store)
    # Only a refusal would come again for certain; a library may raise anything for want of memory.
    assert isinstance(raised.value, MayPass) == (fault != "refuse")
    logs = {name for name in names(store) if name.endswith(".log")}
    assert names(store) == logs
    if fault == "refuse":
        assert logs == set()
    else:
        [log] = logs
        text = (store.folder / log).read_text()
        assert "libraries print a great deal" in text or fault in ("kill", "exit")
        assert ("Traceback" in text) == (fault == "raise")
    paper.configure()
    assert {ensure(paper.request(), store).id} == names(store)


def test_two_processes_at_once_make_it_once(paper: Paper, store: ArtifactStore) -> None:
    paper.configure(pause_s=1)
    first, second = start(paper.request(), store), start(paper.request(), store)
    ids = [process.communicate(timeout=PATIENCE_S)[0] for process in (first, second)]
    assert ids[0] == ids[1] != ""
    assert paper.tries == 1


def test_threads_of_one_process_make_it_once(paper: Paper, store: ArtifactStore) -> None:
    paper.configure(pause_s=0.5)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: ensure(paper.request(), store), range(4)))
    assert len({artifact.id for artifact in made}) == 1
    assert paper.tries == 1


def test_a_builder_that_is_killed_leaves_the_next_one_a_clean_start(
    paper: Paper, store: ArtifactStore
) -> None:
    paper.configure(pause_s=PATIENCE_S)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(ensure, paper.request(), store)
        wait_until(lambda: paper.tries == 1)
        os.kill(int(paper.diary.read_text()), signal.SIGKILL)
        with pytest.raises(MayPass, match="killed; is the memory enough"):
            future.result(PATIENCE_S)
    assert all(name.endswith(".log") for name in names(store))
    paper.configure()
    ensure(paper.request(), store)
    assert paper.tries == 2


def test_a_builder_gives_way_to_what_is_served(paper: Paper, store: ArtifactStore) -> None:
    paper.configure(pause_s=PATIENCE_S)
    holder = start(paper.request(), store)
    wait_until(lambda: paper.tries == 1)
    builder = int(paper.diary.read_text())
    assert os.getpriority(os.PRIO_PROCESS, builder) == os.nice(0) + 5
    grouped = Path(f"/proc/{builder}/autogroup")
    if grouped.exists():  # where the kernel weighs sessions before processes
        assert grouped.read_text().endswith("nice 5\n")
    holder.kill()
    holder.wait()


def test_a_holder_that_is_killed_takes_its_builder_along(
    paper: Paper, store: ArtifactStore
) -> None:
    paper.configure(pause_s=PATIENCE_S)
    holder = start(paper.request(), store)
    wait_until(lambda: paper.tries == 1)
    assert any(name.endswith(".unfinished") for name in names(store))
    holder.kill()
    holder.wait()
    builder = int(paper.diary.read_text())
    wait_until(lambda: not Path(f"/proc/{builder}/fd/0").exists())
    assert not store.ids()
    # The same request, whose half-made folder the kernel gave nobody to clean up.
    with ThreadPoolExecutor(1) as pool:
        stop = threading.Event()
        key = key_of(paper.request(), store)
        future = pool.submit(ensure_key, paper.request(), key, store, stop=stop)
        wait_until(lambda: paper.tries == 2)
        assert sum(name.endswith(".unfinished") for name in names(store)) == 1
        stop.set()
        with pytest.raises(InterruptedError):
            future.result(PATIENCE_S)
    assert not any(name.endswith(".unfinished") for name in names(store))


def test_who_waits_for_another_can_be_stopped(paper: Paper, store: ArtifactStore) -> None:
    paper.configure(pause_s=PATIENCE_S)
    key = key_of(paper.request(), store)
    stop, waits = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ensure_key, paper.request(), key, store, stop=stop)
        wait_until(lambda: paper.tries == 1)
        second = pool.submit(ensure_key, paper.request(), key, store, stop=stop, on_wait=waits.set)
        assert waits.wait(PATIENCE_S)
        stop.set()
        for future in (first, second):
            with pytest.raises(InterruptedError):
                future.result(PATIENCE_S)


@pytest.mark.parametrize("damage", ["byte", "size", "file", "manifest", "no manifest", "other id"])
def test_a_damaged_artifact_is_made_anew(
    paper: Paper, store: ArtifactStore, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = ensure(paper.request(), store)
    file, manifest = artifact.weights_folder / "first.bin", artifact.folder / "manifest.json"
    match damage:
        case "byte":
            file.write_bytes(b"\1" + file.read_bytes()[1:])
        case "size":
            file.write_bytes(file.read_bytes()[:-1])
        case "file":
            file.unlink()
        case "manifest":
            manifest.write_text(manifest.read_text().replace("made_for", "mad_for"))
        case "no manifest":
            manifest.unlink()
        case "other id":
            manifest.write_text(manifest.read_text().replace('"folds": 1', '"folds": 2'))
    again = ensure(paper.request(), store)
    assert paper.tries == 2
    assert again.id == artifact.id
    assert file.read_bytes() == bytes(1_000)
    [said] = [
        text for text in caplog.messages if str(artifact.folder) in text and "made anew" in text
    ]
    assert said.endswith("; it is made anew")
    assert ensure(paper.request(), store) == again
    assert paper.tries == 2


def test_an_artifact_that_cannot_be_read_now_stays(
    paper: Paper, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = ensure(paper.request(), store)

    def refuse(path: Path) -> str:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    said = r"^origami:folded: .*: cannot be read: Stale file handle$"
    with monkeypatch.context() as patched:
        patched.setattr("serving.artifacts.manifest.file_digest", refuse)
        with pytest.raises(MayPass, match=said):
            ensure(paper.request(), store)
    assert ensure(paper.request(), store) == artifact
    assert paper.tries == 1


def test_files_that_are_open_outlive_their_artifact(paper: Paper, store: ArtifactStore) -> None:
    artifact = ensure(paper.request(), store)
    with (artifact.weights_folder / "first.bin").open("rb") as file:
        store.remove(artifact.id)
        assert names(store) == set()
        assert file.read() == bytes(1_000)


def test_the_cores_that_preparing_may_use_reach_it(paper: Paper, store: ArtifactStore) -> None:
    key = key_of(paper.request(), store)
    artifact = ensure_key(paper.request(), key, store, threads=3)
    assert json.loads((artifact.weights_folder / "second.bin").read_text())["threads"] == 3
