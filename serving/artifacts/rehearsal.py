"""Tries what preparing begins with, in a process: ``python -m serving.artifacts.rehearsal``.

The task's files are made and thrown away, and the weights are loaded as transformers loads them:
a checkpoint that could not be loaded is so refused before anything is served.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import TypeAdapter

from serving.artifacts.order import REFUSED
from serving.artifacts.request import ArtifactRequest
from serving.errors import ConfigError, QuantserveError
from serving.seams import Checkpoint
from serving.tasks import TASKS

FROM_TRANSFORMERS = ("torch", "openvino", "onnxruntime", "litert", "tvm", "tensorrt")
"""Runtimes that prepare from a model of transformers."""

_REQUESTS = TypeAdapter(list[tuple[ArtifactRequest, int | None]])


def rehearse(requests: Iterable[tuple[ArtifactRequest, int | None]]) -> list[ArtifactRequest]:
    """Try each checkpoint once for each task, limit of tokens and runtime.

    Args:
        requests: What would be prepared, and the limit of its model's configuration.

    Returns:
        The request that stood for each checkpoint.

    Raises:
        ConfigError: One could not be prepared; names a variant.
    """
    wanted = {
        (one.checkpoint, one.adapter, one.task, max_tokens, one.runtime): (one, max_tokens)
        for one, max_tokens in requests
        if one.runtime in FROM_TRANSFORMERS
    }
    if not wanted:
        return []
    tried = subprocess.run(
        [sys.executable, "-m", "serving.artifacts.rehearsal"],
        input=_REQUESTS.dump_json(list(wanted.values())),
        capture_output=True,
        check=False,
    )
    if tried.returncode == REFUSED:
        raise ConfigError(tried.stdout.decode())
    if tried.returncode:
        lines = tried.stderr.decode(errors="replace").strip().splitlines()
        raise ConfigError(f"trying to load what is configured failed: {' '.join(lines[-1:])}")
    return [request for request, _ in wanted.values()]


def _try(request: ArtifactRequest, max_tokens: int | None) -> None:
    from serving.runtimes.torch.rehearsing import try_encoder, try_generator

    entry = TASKS[request.task]
    with TemporaryDirectory() as folder:
        entry.prepare(request.checkpoint, Path(folder))
        task = entry.open(Path(folder), max_tokens)
    if entry.kind == "encoder":
        if max_tokens is not None and task.max_tokens < max_tokens:
            raise ConfigError(
                f"max_tokens is {max_tokens}; the checkpoint takes {task.max_tokens}. Lower it, "
                "or leave it out"
            )
        with _as_prepared(request) as checkpoint:
            try_encoder(checkpoint, task.head)
        return
    is_fused = request.runtime == "torch" and request.device == "cpu"
    with _as_prepared(request) as checkpoint:
        try_generator(checkpoint, is_fused)


@contextmanager
def _as_prepared(request: ArtifactRequest) -> Iterator[Checkpoint]:
    """The checkpoint of float numbers that preparing begins with."""
    from serving.runtimes.torch.expanding import as_floats
    from serving.runtimes.torch.merging import with_merged

    with as_floats(request.checkpoint) as floats, with_merged(floats, request.adapter) as merged:
        yield merged


def main() -> int:
    """Try what standard input lists; returns the exit status."""
    # What libraries print is no answer.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for request, max_tokens in _REQUESTS.validate_json(sys.stdin.buffer.read()):
        try:
            _try(request, max_tokens)
        except QuantserveError as error:
            output.write(f"{request.name}: {error}")
            output.close()
            return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
