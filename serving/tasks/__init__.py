"""The table of tasks. Adding one is a file here and an entry in ``TASKS``."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from serving.errors import ConfigError
from serving.seams import Checkpoint, EncoderTask, GenerationTask

TASKS = {
    "embeddings": "serving.tasks.embeddings:load",
    "classification": "serving.tasks.classification:load",
    "generation": "serving.tasks.generation:load",
}
"""Public name to ``module:attribute``; a string, so that validating a name imports nothing."""

GENERATION_TASKS = frozenset({"generation"})
"""Those that run on a generator and load with ``load_generation_task``; the rest are encoders."""


def check_task(name: str) -> None:
    """Raise ``ConfigError`` with the known names unless ``name`` is one of them."""
    if name not in TASKS:
        raise ConfigError(f"unknown task {name!r}; known: {', '.join(TASKS)}")


def load_task(name: str, checkpoint: Checkpoint, max_tokens: int | None = None) -> EncoderTask:
    """Load tokenizer and settings of the encoders' task ``name`` for a checkpoint.

    Args:
        name: An entry of ``TASKS`` that is not in ``GENERATION_TASKS``.
        checkpoint: Where tokenizer and config lie.
        max_tokens: Lower limit for a text's tokens than the checkpoint's own.

    Raises:
        ConfigError: The name is unknown, or the checkpoint does not fit the task.
    """
    return cast(EncoderTask, _load(name, checkpoint, max_tokens))


def load_generation_task(
    name: str, checkpoint: Checkpoint, max_tokens: int | None = None
) -> GenerationTask:
    """Load tokenizer and settings of the generators' task ``name`` for a checkpoint.

    Args:
        name: An entry of ``GENERATION_TASKS``.
        checkpoint: Where tokenizer and config lie.
        max_tokens: Most tokens of prompt and continuation together.

    Raises:
        ConfigError: The name is unknown, or the checkpoint does not fit the task.
    """
    return cast(GenerationTask, _load(name, checkpoint, max_tokens))


def _load(name: str, checkpoint: Checkpoint, max_tokens: int | None) -> Any:
    check_task(name)
    module, _, attribute = TASKS[name].partition(":")
    return getattr(import_module(module), attribute)(checkpoint, max_tokens)
