"""Embeddings: one vector per text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidField
from serving.heads import normalize
from serving.seams import (
    Arrays,
    Checkpoint,
    EncoderJudging,
    Input,
    Item,
    Outcome,
    Pooled,
    Task,
    Tensors,
    TensorSpec,
)
from serving.tasks.checkpoint_files import load_model_config
from serving.tasks.embeddings_files import EmbeddingsFiles, read_embeddings_files
from serving.tasks.sentence_transformers_files import (
    TransformerSettings,
    read_transformer_settings,
)
from serving.tasks.task_files import open_text_items, read_settings, write_task
from serving.tasks.text_architectures import require_served
from serving.tasks.text_items import TextItems, TextSettings, only_texts


class EmbeddingsSettings(TextSettings):
    """What preparing writes.

    Attributes:
        head: How token vectors become one.
        width: Numbers of an answer: those of the model, or its leading ones.
        prompt: What stands before every text.
    """

    head: Pooled
    width: int
    prompt: str


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The task ``embeddings`` for one checkpoint; see ``EncoderTask``."""

    head: Pooled
    items: TextItems
    width: int
    prompt: str
    labels: tuple[str, ...] = ()

    @property
    def max_tokens(self) -> int:
        """Most tokens of a text, those of the prompt included."""
        return self.items.max_tokens

    def prepare(self, inputs: Sequence[Input], truncate: bool) -> list[Item]:
        """Make an item of each text, behind the prompt."""
        return self.items.encode([self.prompt + text for text in only_texts(inputs)], truncate)

    def prepare_ids(self, inputs: Sequence[Sequence[int]], truncate: bool) -> list[Item]:
        """Make an item of each input's token ids; no prompt, and no special token, is added."""
        return self.items.take_ids(inputs, truncate)

    def collate(self, items: Sequence[Item]) -> Arrays:
        """Make one batch."""
        return self.items.collate(items)

    def check_dimensions(self, dimensions: int | None) -> None:
        """Raise ``InvalidField`` if the model has fewer than ``dimensions``."""
        if dimensions is not None and dimensions > self.width:
            raise InvalidField(
                f"dimensions is {dimensions}; this model has {self.width}", param="dimensions"
            )

    def decode(self, rows: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
        """Normalise as the head says, and keep the leading numbers.

        What a request's ``dimensions`` cuts is scaled to unit length again, as OpenAI's clients
        expect. What the checkpoint's own width cuts is not, as sentence-transformers does it.
        """
        whole = normalize(rows) if self.head.normalize else rows
        kept = whole[:, : self.width]
        if dimensions is None or dimensions == self.width:
            return kept
        cut = kept[:, :dimensions]
        return normalize(cut) if self.head.normalize else cut


def open_task(folder: Path, max_tokens: int | None) -> Embeddings:
    """Make the task from what ``prepare`` wrote; see ``Task.open``."""
    settings = read_settings(folder, EmbeddingsSettings)
    items = open_text_items(folder, settings, max_tokens)
    return Embeddings(settings.head, items, settings.width, settings.prompt)


def prepare(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the task's part of an artifact; see ``Task.prepare``.

    A checkpoint with sentence-transformers' files is served as that library would; any other gets
    the mean of its token vectors, of unit length.

    Raises:
        ConfigError: The checkpoint is no text model, or its files ask for what is not built here.
    """
    from serving.tasks.text_preparing import load_text_model, prepare_texts

    files, transformer = _read_files(checkpoint)
    model = load_text_model(checkpoint, "AutoModel")
    require_served(checkpoint, model.config.to_dict(), is_classifier=False)
    settings = EmbeddingsSettings(
        **prepare_texts(model, transformer).model_dump(),
        head=files.head,
        width=_width(model.config, files),
        prompt=files.prompt,
    )
    write_task(folder, model.tokenizer.backend_tokenizer, settings)


def _read_files(checkpoint: Checkpoint) -> tuple[EmbeddingsFiles, TransformerSettings]:
    files = read_embeddings_files(checkpoint)
    return files, read_transformer_settings(checkpoint, "last_hidden_state")


def _width(config: Any, files: EmbeddingsFiles) -> int:
    width: int = config.get_text_config().hidden_size
    return min(width, files.truncate_dim or width)


def _check(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    require_served(checkpoint, config, is_classifier=False)
    _read_files(checkpoint)


def _why_not_comparable(checkpoint: Checkpoint, reference: Checkpoint) -> str | None:
    width, expected = (
        _width(load_model_config(found), read_embeddings_files(found))
        for found in (checkpoint, reference)
    )
    if width == expected:
        return None
    return f"vectors of {width} numbers; the reference's have {expected}"


def _read_probes(path: Path | None) -> tuple[Input, ...]:
    from serving.quality.probes import TEXTS, read_text_probes

    return read_text_probes(path, TEXTS)


def _read_labelled(path: Path) -> Sequence[Any]:
    from serving.quality.dataset import refuse_labels

    refuse_labels(path)


def _judging() -> EncoderJudging:
    from serving.quality.agreement import embeddings_judging

    return embeddings_judging()


def _show(outcome: Outcome, index: int) -> dict[str, Any]:
    return {"embedding": outcome.rows[index]}


def _to_inputs(texts: Mapping[str, Sequence[str]]) -> tuple[Input, ...]:
    return tuple(texts["text"])


def _to_outputs(outcome: Outcome) -> Mapping[str, Any]:
    return {"embedding": outcome.rows}


TASK = Task(
    kind="encoder",
    prepare=prepare,
    open=open_task,
    read_probes=_read_probes,
    read_labelled=_read_labelled,
    floor=0.7,
    tolerance=0.05,
    judging=_judging,
    show=_show,
    tensors=Tensors(
        inputs=(TensorSpec("text", "BYTES", (-1,)),),
        outputs=(TensorSpec("embedding", "FP32", (-1, None)),),
        to_inputs=_to_inputs,
        to_outputs=_to_outputs,
    ),
    check=_check,
    why_not_comparable=_why_not_comparable,
)
