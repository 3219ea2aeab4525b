"""What a task's ``prepare`` writes and its ``open`` reads: a tokenizer and one file of settings."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from tokenizers import Tokenizer

from serving.errors import ConfigError, MayPass
from serving.rust_panics import panics_as_errors
from serving.settings import explain
from serving.tasks.text_items import TextItems, TextSettings

TOKENIZER_FILE, TASK_FILE = "tokenizer.json", "task.json"

Settings = TypeVar("Settings", bound=BaseModel)


def write_task(folder: Path, tokenizer: Tokenizer, settings: BaseModel) -> None:
    """Write a task to an empty folder.

    Raises:
        ConfigError: The tokenizer has a part of its own in Python, which no file can hold.
    """
    try:
        tokenizer.save(str(folder / TOKENIZER_FILE))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ConfigError(f"the tokenizer cannot be written as {TOKENIZER_FILE}: {error}") from None
    (folder / TASK_FILE).write_text(settings.model_dump_json(indent=1), encoding="utf-8")


def read_settings(folder: Path, shape: type[Settings]) -> Settings:
    """Read the settings that ``write_task`` wrote.

    Raises:
        ConfigError: The file is of another shape; names it.
        MayPass: It cannot be read now.
    """
    file = folder / TASK_FILE
    try:
        return shape.model_validate_json(file.read_bytes())
    except OSError as error:
        raise MayPass(f"{file}: cannot be read: {error}; prepare the variant again") from None
    except ValidationError as error:
        raise ConfigError(f"{file}: {explain(error)}\nPrepare the variant again") from None


def open_text_items(folder: Path, settings: TextSettings, max_tokens: int | None) -> TextItems:
    """Open the tokenizer that ``write_task`` wrote.

    Args:
        folder: Where it lies.
        settings: What was written beside it.
        max_tokens: Lower limit than the checkpoint's own; None if there is no other.

    Raises:
        ConfigError: The tokenizer is damaged, or no limit is known.
        MayPass: It cannot be read now.
    """
    limits = [limit for limit in (settings.max_tokens, max_tokens) if limit is not None]
    if not limits:
        raise ConfigError(
            "the checkpoint names no limit for the tokens of a text; set the model's max_tokens"
        )
    return TextItems(read_tokenizer(folder), settings, min(limits))


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer that ``write_task`` wrote.

    Raises:
        ConfigError: The file is damaged; names it.
        MayPass: It cannot be read now.
    """
    file = folder / TOKENIZER_FILE
    try:
        with panics_as_errors():
            return Tokenizer.from_buffer(file.read_bytes())
    except OSError as error:
        raise MayPass(f"{file}: cannot be read: {error}; prepare the variant again") from None
    except Exception as error:  # tokenizers raises nothing narrower
        raise ConfigError(f"{file}: cannot be read: {error}; prepare the variant again") from None
