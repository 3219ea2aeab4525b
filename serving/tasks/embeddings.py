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
    NO_OPTIONS,
    AnswerOptions,
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
from serving.tasks.row_layer_files import load_weights, width_after
from serving.tasks.row_layers import RowLayer, Weights, apply_layers, read_weights, write_weights
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
        layers: What becomes of that; see ``serving.tasks.row_layers``.
        width: Numbers of an answer: those of the model, or its leading ones.
        prompts: What a request may have before every text, by name.
        default_prompt: What stands there if it names none.
        pools_prompt: Whether a prompt takes part in the pooling.
    """

    head: Pooled
    layers: tuple[RowLayer, ...]
    width: int
    prompts: dict[str, str]
    default_prompt: str
    pools_prompt: bool


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The task ``embeddings`` for one checkpoint; see ``EncoderTask``."""

    settings: EmbeddingsSettings
    items: TextItems
    layer_weights: Sequence[Weights] = ()
    labels: tuple[str, ...] = ()

    @property
    def head(self) -> Pooled:
        """How token vectors become one."""
        return self.settings.head

    @property
    def width(self) -> int:
        """Numbers of an answer, unless a request wants fewer."""
        return self.settings.width

    @property
    def max_tokens(self) -> int:
        """Most tokens of a text, those of the prompt included."""
        return self.items.max_tokens

    def prepare(
        self, inputs: Sequence[Input], truncate: bool, options: AnswerOptions = NO_OPTIONS
    ) -> list[Item]:
        """Make an item of each text, behind the prompt."""
        name = options.prompt_name
        prompt = self.settings.default_prompt if name is None else self.settings.prompts[name]
        return self.items.encode([prompt + text for text in only_texts(inputs)], truncate)

    def prepare_ids(self, inputs: Sequence[Sequence[int]], truncate: bool) -> list[Item]:
        """Make an item of each input's token ids; no prompt, and no special token, is added."""
        return self.items.take_ids(inputs, truncate)

    def collate(self, items: Sequence[Item]) -> Arrays:
        """Make one batch."""
        return self.items.collate(items)

    def check_options(self, options: AnswerOptions) -> None:
        """Raise ``InvalidField`` if the model has fewer ``dimensions``, or no such prompt."""
        dimensions, name = options.dimensions, options.prompt_name
        if dimensions is not None and dimensions > self.width:
            raise InvalidField(
                f"dimensions is {dimensions}; this model has {self.width}", param="dimensions"
            )
        if name is None:
            return
        prompts = self.settings.prompts
        if name not in prompts:
            raise InvalidField(
                f"prompt_name is {name!r}; this model has {', '.join(prompts)}",
                param="prompt_name",
            )
        if prompts[name] and not self.settings.pools_prompt:
            raise InvalidField(
                f"prompt_name is {name!r}: this model leaves prompts out of its pooling, which is "
                "not supported",
                param="prompt_name",
            )

    def decode(
        self, rows: NDArray[np.float32], options: AnswerOptions = NO_OPTIONS
    ) -> NDArray[np.float32]:
        """Compute the checkpoint's further layers, keep the leading numbers, and normalise.

        What a request cuts has unit length again, as OpenAI's clients expect. What the checkpoint's
        own width cuts has not unless the request says so, as sentence-transformers does it.
        """
        whole = apply_layers(self.settings.layers, self.layer_weights, rows)
        kept = whole[:, : options.dimensions or self.width]
        is_unit = self.head.normalize if options.normalize is None else options.normalize
        if not is_unit:
            return kept
        if options.normalize is None and kept.shape[1] == self.width:
            return normalize(whole)[:, : self.width]
        return normalize(kept)


def open_task(folder: Path, max_tokens: int | None) -> Embeddings:
    """Make the task from what ``prepare`` wrote; see ``Task.open``."""
    settings = read_settings(folder, EmbeddingsSettings)
    items = open_text_items(folder, settings, max_tokens)
    return Embeddings(settings, items, read_weights(folder, len(settings.layers)))


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
        layers=tuple(found.layer for found in files.layers),
        width=_width(checkpoint, model.config, files),
        prompts=dict(files.prompts),
        default_prompt=files.default_prompt,
        pools_prompt=files.pools_prompt,
    )
    write_task(folder, model.tokenizer.backend_tokenizer, settings)
    write_weights(folder, [load_weights(checkpoint, found) for found in files.layers])


def _read_files(checkpoint: Checkpoint) -> tuple[EmbeddingsFiles, TransformerSettings]:
    files = read_embeddings_files(checkpoint)
    return files, read_transformer_settings(checkpoint, "last_hidden_state")


def _width(checkpoint: Checkpoint, config: Any, files: EmbeddingsFiles) -> int:
    width: int = config.get_text_config().hidden_size
    width = width_after(checkpoint, files.layers, width)
    return min(width, files.truncate_dim or width)


def _check(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    require_served(checkpoint, config, is_classifier=False)
    _read_files(checkpoint)


def _why_not_comparable(checkpoint: Checkpoint, reference: Checkpoint) -> str | None:
    width, expected = (
        _width(found, load_model_config(found), read_embeddings_files(found))
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
