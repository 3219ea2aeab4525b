"""Labelled data: examples with the right label, and passages for perplexity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import TextWrapper
from typing import NoReturn

from pydantic import BaseModel, ConfigDict, Field

from serving.errors import ConfigError
from serving.quality.json_lines import check_count, read_json_lines, read_text
from serving.seams import Input

MAX_EXAMPLES = 100_000
PIECE_CHARACTERS = 1_500
"""Longest piece of a plain text: some 400 tokens of English, which every model has room for."""


@dataclass(frozen=True, slots=True)
class Example:
    """An input and, for accuracy, its label."""

    input: Input
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """A text whose probability a generator is asked for.

    Attributes:
        prompt: What comes before it and is not scored; may be empty.
        continuation: What is scored.
    """

    prompt: str
    continuation: str


class _Labelled(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    input: str = Field(min_length=1)
    label: str | None = None


class _Completion(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    prompt: str
    completion: str = Field(min_length=1)


def read_examples(path: Path, *, need_labels: bool = True) -> list[Example]:
    """Read ``.jsonl`` lines ``{"input": …, "label": …}``, or any other file as one text per line.

    Args:
        path: The file.
        need_labels: Refuse texts without labels.

    Raises:
        ConfigError: The file cannot be read or has no or too many texts, some or all labels are
            missing, or a line is wrong; names file and line.
    """
    if path.suffix == ".jsonl":
        lines = read_json_lines(path, _Labelled, MAX_EXAMPLES)
        examples = [Example(line.input, line.label) for line in lines]
    else:
        texts = [line for line in read_text(path).splitlines() if line.strip()]
        check_count(path, len(texts), MAX_EXAMPLES)
        examples = [Example(text) for text in texts]
    labelled = sum(example.label is not None for example in examples)
    if labelled not in (0, len(examples)):
        raise ConfigError(f"{path}: {labelled} of {len(examples)} lines have a label; all or none")
    if need_labels and not labelled:
        raise ConfigError(
            f'{path}: no labels; every line must be {{"input": …, "label": …}} in a .jsonl file'
        )
    return examples


def read_passages(path: Path) -> list[Passage]:
    """Read ``.jsonl`` lines ``{"prompt": …, "completion": …}``, or any other file as plain text.

    Raises:
        ConfigError: See ``read_examples``.
    """
    if path.suffix == ".jsonl":
        lines = read_json_lines(path, _Completion, MAX_EXAMPLES)
        return [Passage(line.prompt, line.completion) for line in lines]
    pieces = cut_text(read_text(path))
    check_count(path, len(pieces), MAX_EXAMPLES)
    return [Passage("", piece) for piece in pieces]


def refuse_labels(path: Path) -> NoReturn:
    """Raise ``ConfigError``: for tasks whose answers can be neither right nor wrong."""
    raise ConfigError(
        f"{path}: a model of this task has no labels to meet; remove the dataset. Probes and "
        "sampled requests judge its variants"
    )


def cut_text(text: str) -> list[str]:
    """Cut a text into pieces of at most ``PIECE_CHARACTERS``, at line ends where it has some.

    A longer line is cut between words, a longer word anywhere. Nothing else is lost than the line
    ends at the cuts, and pieces without a word.
    """
    wrapper = TextWrapper(
        PIECE_CHARACTERS,
        expand_tabs=False,
        replace_whitespace=False,
        drop_whitespace=False,
        break_on_hyphens=False,
    )
    pieces: list[str] = []
    piece: list[str] = []
    length = 0
    for line in text.splitlines():
        for part in wrapper.wrap(line) if len(line) > PIECE_CHARACTERS else [line]:
            if piece and length + 1 + len(part) > PIECE_CHARACTERS:
                pieces.append("\n".join(piece))
                piece, length = [], 0
            length += len(part) + bool(piece)
            piece.append(part)
    pieces.append("\n".join(piece))
    return [piece for piece in pieces if piece.strip()]
