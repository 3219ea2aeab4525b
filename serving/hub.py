"""Fetches a checkpoint from the Hugging Face hub: what the loader reads, and nothing else."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from textwrap import shorten
from typing import Any

from serving.checkpoint_json import QUANTIZATION_FILES, read_config_of
from serving.errors import SourceError

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"

# The hub's client lets a star match slashes too: folders of sentence-transformers' modules come
# along, and a tokenizer's further chat templates.
_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_OTHER_FORMS = ["original/*", "onnx/*", "openvino/*"]
"""The same model in forms that are not read here."""

_REASON_CHARACTERS = 200


def fetch_from_hub(where: str, repo: str, revision: str, trust_remote_code: bool) -> Path:
    """Download what is missing of a repository at a revision; returns the folder of its files.

    A download that broke off goes on where it did. Without a network what was fetched before is
    found again.

    Args:
        where: For messages: whose source it is.
        repo: ``org/name``.
        revision: A commit, tag or branch.
        trust_remote_code: Whether Python code comes along.

    Raises:
        SourceError: It cannot be fetched; says why, and what would help.
    """
    small = [*_SMALL_FILES, "*.py"] if trust_remote_code else _SMALL_FILES
    folder = download(where, repo, revision, small)
    weights = _indexed_weights(folder)
    # The folder is called as the commit: a branch may have moved since.
    return download(where, repo, folder.name, [*small, WEIGHTS, f"*/{WEIGHTS}", *weights])


def download(where: str, repo: str, revision: str, patterns: list[str]) -> Path:
    """Download some files of a repository at a revision; returns the folder that they lie in.

    Args:
        where: As of ``fetch_from_hub``, likewise ``repo`` and ``revision``.
        patterns: Names of the files, with wildcards.

    Raises:
        SourceError: As of ``fetch_from_hub``.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=patterns, ignore_patterns=_OTHER_FORMS
        )
    except Exception as error:  # the hub's client raises a dozen unrelated types
        raise SourceError(
            f"{where}: cannot be fetched from the hub: {_reason(error, repo, revision)}"
        ) from error
    return Path(folder)


def _indexed_weights(folder: Path) -> list[str]:
    """Files that an index of weights names; of a damaged one, all that may be."""
    if not (folder / WEIGHTS_INDEX).is_file():
        return []
    try:
        index = json.loads((folder / WEIGHTS_INDEX).read_text("utf-8"))
        names = sorted({str(name) for name in index["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    # A name is a pattern for the client.
    return ["".join(f"[{c}]" if c in "*?[" else c for c in name) for name in names]


def read_headers_on_hub(
    where: str, repo: str, revision: str
) -> tuple[dict[str, Any], list[tuple[str, tuple[int, ...], str]]]:
    """What a repository says of itself, without its weights: some kB of each file are sent.

    Returns:
        Its configuration, as of ``read_config_of``; and name, shape and type of every tensor.

    Raises:
        SourceError: As of ``fetch_from_hub``, or a header cannot be read.
    """
    from huggingface_hub import HfApi

    folder = download(where, repo, revision, ["config.json", *QUANTIZATION_FILES])
    try:
        config = read_config_of(folder)
        files = HfApi().get_safetensors_metadata(repo, revision=folder.name).files_metadata
    except Exception as error:  # as of ``download``; and files may hold anything
        raise SourceError(f"{where}: cannot be read on the hub: {_first_line(error)}") from error
    return config, [
        (name, tuple(tensor.shape), tensor.dtype)
        for file in files.values()
        for name, tensor in file.tensors.items()
    ]


def what_it_holds(repo: str, revision: str) -> list[str]:
    """Weights of other forms in a repository, as far as the hub says."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().list_repo_files(repo, revision=revision)
    except Exception:  # it is only a hint
        return []
    kinds = ("*.bin", "*.pt", "*.safetensors", "*.gguf", "*.h5", "*.msgpack")
    return sorted(file for file in files if any(fnmatch.fnmatch(file, kind) for kind in kinds))


def _reason(error: Exception, repo: str, revision: str) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return (
            f"{repo} is gated: ask for access on its page, and set HF_TOKEN to a token of the "
            "account that has it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}; give a commit, tag or branch that it has"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"there is no model {repo}, or it is private; for a private one set HF_TOKEN to a "
            "token that may read it"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        cause = error.__cause__ or error.__context__
        return (
            f"the hub cannot be reached ({_first_line(cause) if cause else 'no connection'}), and "
            f"{repo} at {revision!r} is not in the cache; connect, or give a folder as the source"
        )
    return _first_line(error)


def _first_line(error: Any) -> str:
    lines = str(error).strip().splitlines()
    return (
        shorten(lines[0], _REASON_CHARACTERS, placeholder=" …") if lines else type(error).__name__
    )
