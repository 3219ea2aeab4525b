"""Labelled data: examples with the right label, and passages for perplexity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import TextWrapper

from pydantic import BaseModel, ConfigDict, Field

from serving.errors import ConfigError
from serving.quality.json_lines import check_count, read_json_lines, read_text

MAX_EXAMPLES = 100_000
PIECE_CHARACTERS = 1_500
"""Longest piece of a plain text: some 400 tokens of English, which every model has room for."""


class Example(BaseModel):
    """One line of a data file: a text and, for accuracy, its label."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    input: str = Field(min_length=1)
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


class _Completion(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    prompt: str
    completion: str = Field(min_length=1)


def read_dataset(path: Path, task: str) -> list[Example] | list[Passage]:
    """Read the labelled data of a model.

    Args:
        path: For classification, examples, all with a label; for generation, JSON lines
            ``{"prompt": …, "completion": …}`` in a ``.jsonl`` file, else a plain text.
        task: The model's.

    Raises:
        ConfigError: The task has no labels, the file cannot be read or has no or too many texts,
            or a line is wrong; names file and line.
    """
    if task == "embeddings":
        raise ConfigError(
            f"{path}: a model that embeds has no labels to meet; remove the dataset. Probes and "
            "sampled requests judge its variants"
        )
    if task == "generation":
        return _read_passages(path)
    examples = read_examples(path)
    if examples[0].label is None:
        raise ConfigError(
            f'{path}: no labels; every line must be {{"input": …, "label": …}} in a .jsonl file'
        )
    return examples


def read_examples(path: Path) -> list[Example]:
    """Read ``.jsonl`` lines ``{"input": …, "label": …}``, or any other file as one text per line.

    Raises:
        ConfigError: The file cannot be read or has no or too many texts, or a line is wrong;
            names file and line.
    """
    if path.suffix == ".jsonl":
        examples = read_json_lines(path, Example, MAX_EXAMPLES)
    else:
        lines = [line for line in read_text(path).splitlines() if line.strip()]
        check_count(path, len(lines), MAX_EXAMPLES)
        examples = [Example(input=line) for line in lines]
    labelled = sum(example.label is not None for example in examples)
    if labelled not in (0, len(examples)):
        raise ConfigError(f"{path}: {labelled} of {len(examples)} lines have a label; all or none")
    return examples


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


def _read_passages(path: Path) -> list[Passage]:
    if path.suffix == ".jsonl":
        lines = read_json_lines(path, _Completion, MAX_EXAMPLES)
        return [Passage(line.prompt, line.completion) for line in lines]
    pieces = cut_text(read_text(path))
    check_count(path, len(pieces), MAX_EXAMPLES)
    return [Passage("", piece) for piece in pieces]
