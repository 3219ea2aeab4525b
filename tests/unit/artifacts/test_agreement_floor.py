"""What an artifact must reach before it is installed, and what is kept of the measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.artifacts import AgreementFloor, ArtifactRequest, ArtifactStore, ensure, key_of
from serving.artifacts.calibration import read_held_out
from serving.artifacts.request import CalibrationOrigin
from serving.errors import ConfigError, MayPass
from tests.unit.paper import Paper

COUNT = 60


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Sixty different texts of 3 letters."""
    file = tmp_path / "texts.jsonl"
    lines = (
        json.dumps({"input": f"{chr(97 + index // 10)}b{index % 10}"}) for index in range(COUNT)
    )
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def origin(path: Path) -> CalibrationOrigin:
    return CalibrationOrigin(
        name="texts.jsonl", path=path, is_labelled=False, count=300, holds_out=True
    )


def with_floor(
    paper: Paper, path: Path, least: float, folds: int = 1, reference: ArtifactRequest | None = None
) -> ArtifactRequest:
    """Ask for a variant whose answers are the reference's, each number ``folds - 1`` places on."""
    floor = AgreementFloor(
        least=least,
        origin=origin(path),
        reference=reference or paper.request("reference", options={"folds": 1}),
    )
    return paper.request(options={"folds": folds}, floor=floor)


def expected_cosine(path: Path) -> float:
    """Mean cosine of (1, s, s², s³) and (s³, 1, s, s²), over the sums s of the held-out texts."""
    held_out = [json.loads(line)["input"] for line in path.read_text().splitlines()][4::5]
    sums = [sum(map(ord, text)) for text in held_out]
    cosines = [(s**3 + s + s**3 + s**5) / (1 + s**2 + s**4 + s**6) for s in sums]
    return sum(cosines) / len(cosines)


def test_the_manifest_of_what_reaches_its_floor_has_the_number(
    paper: Paper, store: ArtifactStore, texts: Path
) -> None:
    cosine = expected_cosine(texts)
    artifact = ensure(with_floor(paper, texts, cosine - 1e-5, folds=2), store)
    agreement = artifact.manifest.agreement
    assert agreement is not None
    # The engine computes in float32, the test in whole numbers.
    assert agreement.value == pytest.approx(cosine, rel=1e-5)
    assert (agreement.measure, agreement.inputs, agreement.data) == ("cosine", 12, "texts.jsonl")
    assert agreement.reference == "folded on paper"
    written = json.loads((artifact.folder / "manifest.json").read_text())
    assert written["agreement"]["value"] == agreement.value
    assert written["key"]["measured_on"]["inputs"]["count"] == 12
    assert written["key"]["measured_on"]["reference"] in store.ids()
    assert store.look_up(artifact.id) == artifact


def test_nothing_is_installed_below_the_floor(
    paper: Paper, store: ArtifactStore, texts: Path
) -> None:
    request = with_floor(paper, texts, 0.99, folds=2)
    with pytest.raises(ConfigError) as caught:
        ensure(request, store)
    assert str(caught.value).startswith(
        f"origami:folded: cosine to folded on paper {expected_cosine(texts):.4f} over 12 held-out "
        "inputs of texts.jsonl, below its min_agreement 0.99: nothing is installed. Take another "
    )
    assert key_of(request, store).id not in store.ids()
    assert len(store.ids()) == 1  # the reference
    # Digests are kept only of files that settled.
    left = {path.name for path in store.folder.iterdir()} - {"digests.json"}
    assert left == set(store.ids())


def test_what_is_no_number_agrees_in_nothing(
    paper: Paper, store: ArtifactStore, texts: Path
) -> None:
    # Folded 9 times, paper is no number any more.
    with pytest.raises(ConfigError, match=r"cosine to folded on paper 0\.0000 "):
        ensure(with_floor(paper, texts, 0.1, folds=9), store)


def test_a_floor_that_is_raised_or_lowered_makes_nothing_anew(
    paper: Paper, store: ArtifactStore, texts: Path
) -> None:
    low = with_floor(paper, texts, 0.001, folds=2)
    artifact = ensure(low, store)
    tries = paper.tries
    raised = with_floor(paper, texts, 0.9, folds=2)
    assert key_of(raised, store) == artifact.manifest.key
    with pytest.raises(
        ConfigError, match=r"min_agreement 0\.9: what is in the store is not served"
    ):
        ensure(raised, store)
    assert ensure(low, store) == artifact
    assert paper.tries == tries


def test_without_a_floor_neither_key_nor_manifest_knows_of_it(
    paper: Paper, store: ArtifactStore
) -> None:
    artifact = ensure(paper.request(), store)
    written = json.loads((artifact.folder / "manifest.json").read_text())
    assert "agreement" not in written
    # Every field of format 5 before there were floors: the id is a digest of these.
    assert written["key"].keys() == {
        "format",
        "source",
        "task",
        "recipe",
        "options",
        "runtime",
        "versions",
        "device",
        "instructions",
        "calibration",
        "kv_cache",
    }


def test_other_data_to_measure_on_is_another_artifact(
    paper: Paper, store: ArtifactStore, texts: Path
) -> None:
    before = key_of(with_floor(paper, texts, 0.9), store).id
    assert before != key_of(paper.request(), store).id
    lines = texts.read_text().splitlines(keepends=True)
    texts.write_text("".join([*lines[:3], '{"input": "new"}\n', *lines[4:]]))
    assert key_of(with_floor(paper, texts, 0.9), store).id == before  # none of the held-out ones
    texts.write_text("".join([*lines[:4], '{"input": "new"}\n', *lines[5:]]))
    assert key_of(with_floor(paper, texts, 0.9), store).id != before


def test_no_recipe_calibrates_with_what_is_held_out(
    paper: Paper, store: ArtifactStore, texts: Path
) -> None:
    floor = with_floor(paper, texts, 0.5).floor
    request = paper.measured().model_copy(update={"calibration": origin(texts), "floor": floor})
    artifact = ensure(request, store)
    saw = json.loads((artifact.weights_folder / "second.bin").read_text())
    calibrated = {"".join(map(chr, row)) for batch in saw["calibration"] for row in batch}
    held_out = set(read_held_out("letters", origin(texts)))
    assert len(held_out) == 12
    assert len(calibrated) == 48
    assert not calibrated & held_out
    assert artifact.manifest.notes[0] == (
        "calibrates with 48 inputs of 300 asked for: texts.jsonl has no more beside those that "
        "are held out"
    )


def test_a_reference_that_cannot_be_made_is_told(
    paper: Paper, store: ArtifactStore, texts: Path
) -> None:
    paper.configure(fault="refuse", only="folds=3")
    reference = paper.request("reference", options={"folds": 3})
    with pytest.raises(ConfigError) as caught:
        ensure(with_floor(paper, texts, 0.9, reference=reference), store)
    assert str(caught.value) == (
        "origami:folded: what min_agreement compares it with: origami:reference: paper cannot hold "
        "[this] checkpoint"
    )
    assert store.ids() == []


def test_whether_a_reference_may_be_made_the_next_time_is_told(
    paper: Paper, store: ArtifactStore, texts: Path
) -> None:
    paper.configure(fault="kill", only="folds=3")
    reference = paper.request("reference", options={"folds": 3})
    with pytest.raises(MayPass, match=r"compares it with: origami:reference: .* was killed"):
        ensure(with_floor(paper, texts, 0.9, reference=reference), store)


def test_a_reference_that_is_no_number_is_told(
    paper: Paper, store: ArtifactStore, texts: Path
) -> None:
    reference = paper.request("reference", options={"folds": 9})
    with pytest.raises(ConfigError, match="cannot be measured: the reference's embedding is zero"):
        ensure(with_floor(paper, texts, 0.9, reference=reference), store)
