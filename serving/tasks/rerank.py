"""Rerank: how relevant a document is to a query, by a cross-encoder that reads both together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import ConfigError, InvalidField
from serving.heads import activate
from serving.seams import (
    NO_OPTIONS,
    Activation,
    AnswerOptions,
    Arrays,
    Checkpoint,
    EncoderJudging,
    Input,
    Item,
    Logits,
    Outcome,
    ProbeRows,
    Task,
    Tensors,
    TensorSpec,
)
from serving.tasks.classifier_config import require_one_logit
from serving.tasks.sentence_transformers_files import (
    LibrarySettings,
    TransformerSettings,
    default_prompt,
    read_library_settings,
    read_modules,
    read_transformer_settings,
)
from serving.tasks.task_files import open_text_items, read_settings, write_task
from serving.tasks.text_items import TextItems, TextSettings, refuse_options

_ACTIVATIONS: dict[str | None, Activation] = {
    None: "sigmoid",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.Sigmoid": "sigmoid",
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.Identity": "identity",
}
"""By the names under which sentence-transformers writes them; its default for one logit first."""


class RerankSettings(TextSettings):
    """What preparing writes.

    Attributes:
        head: What makes a score of the one logit.
        prompt: What stands before every query.
    """

    head: Logits
    prompt: str


@dataclass(frozen=True, slots=True)
class Rerank:
    """The task ``rerank`` for one checkpoint; see ``EncoderTask``. Inputs are (query, document)."""

    head: Logits
    items: TextItems
    prompt: str
    width: int = 1
    labels: tuple[str, ...] = ()

    @property
    def max_tokens(self) -> int:
        """Most tokens of a query and a document together."""
        return self.items.max_tokens

    def prepare(
        self, inputs: Sequence[Input], truncate: bool, options: AnswerOptions = NO_OPTIONS
    ) -> list[Item]:
        """Make an item of each pair; of one that is too long, the longer text is cut first."""
        pairs = [pair for pair in inputs if not isinstance(pair, str)]
        if len(pairs) < len(inputs):
            raise InvalidField(
                "this model takes pairs of a query and a document; ask POST /v1/rerank",
                param="input",
            )
        prompted = [(self.prompt + query, document) for query, document in pairs]
        return self.items.encode(prompted, truncate)

    def collate(self, items: Sequence[Item]) -> Arrays:
        """Make one batch."""
        return self.items.collate(items)

    def check_options(self, options: AnswerOptions) -> None:
        """Raise ``InvalidField`` if there are any: they belong to embeddings."""
        refuse_options(options)

    def decode(
        self, rows: NDArray[np.float32], options: AnswerOptions = NO_OPTIONS
    ) -> NDArray[np.float32]:
        """Turn logits (pairs, 1) into scores."""
        return activate(rows, self.head.activation)


def open_task(folder: Path, max_tokens: int | None) -> Rerank:
    """Make the task from what ``prepare`` wrote; see ``Task.open``."""
    settings = read_settings(folder, RerankSettings)
    return Rerank(settings.head, open_text_items(folder, settings, max_tokens), settings.prompt)


def prepare(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the task's part of an artifact, as sentence-transformers' ``CrossEncoder`` reads it.

    Raises:
        ConfigError: The checkpoint is no cross-encoder with one logit, or its files ask for what
            is not built here.
    """
    from serving.tasks.text_preparing import load_classifier, prepare_texts

    library, transformer = _read_files(checkpoint)
    model = load_classifier(checkpoint)
    require_one_logit(checkpoint, model.config.to_dict())
    settings = RerankSettings(
        **prepare_texts(model, transformer).model_dump(),
        head=Logits(activation=_activation(checkpoint, model.config.to_dict(), library)),
        prompt=default_prompt(library),
    )
    write_task(folder, model.tokenizer.backend_tokenizer, settings)


def _read_files(checkpoint: Checkpoint) -> tuple[LibrarySettings, TransformerSettings]:
    library = read_library_settings(checkpoint, "CrossEncoder")
    kinds = [module.kind for module in read_modules(checkpoint)]
    if kinds not in ([], ["Transformer"]):
        raise ConfigError(
            f"{checkpoint.folder / 'modules.json'}: unsupported modules {', '.join(kinds)}; a "
            "cross-encoder here is a Transformer (of sentence-transformers) alone"
        )
    return library, read_transformer_settings(checkpoint, "logits")


def _check(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    library, _ = _read_files(checkpoint)
    require_one_logit(checkpoint, config)
    _activation(checkpoint, config, library)
    default_prompt(library)


def _activation(
    checkpoint: Checkpoint, config: Mapping[str, Any], library: LibrarySettings
) -> Activation:
    """Find the activation where the library looks for it: its own file, then the model's config.

    There, a null under the new key hides what stands under the old one.
    """
    in_config = config.get("sentence_transformers") or {}
    old = config.get("sbert_ce_default_activation_function")
    name = library.activation_fn or in_config.get("activation_fn", old)
    if name not in _ACTIVATIONS:
        known = ", ".join(str(known) for known in _ACTIVATIONS if known)
        raise ConfigError(
            f"{checkpoint.folder}: unsupported activation function {name}; supported: {known}"
        )
    return _ACTIVATIONS[name]


def same_order(
    row: NDArray[np.float32], reference: NDArray[np.float32], probes: ProbeRows | None
) -> float:
    """Share of the probes that stand on the same side of a pair, by score, as in the reference.

    It is what a ranking of the pair among the probes would keep. A score of the variant that is
    NaN or infinite agrees in nothing.

    Raises:
        ValueError: The reference's score is NaN or infinite.
    """
    assert probes is not None  # as ``_judging`` asks for
    if not np.isfinite(reference).all():
        raise ValueError("the reference's score is NaN or infinite")
    if not np.isfinite(row).all():
        return 0.0
    same = np.sign(probes.rows[:, 0] - row[0]) == np.sign(probes.reference[:, 0] - reference[0])
    if probes.leave_out is not None:
        same = np.delete(same, probes.leave_out)
    return float(same.mean())


def score_measures(row: NDArray[np.float32], reference: NDArray[np.float32]) -> Mapping[str, float]:
    """``score_change`` of a pair, absolute; nothing if a score is NaN or infinite."""
    change = float(np.abs(row.astype(np.float64) - reference)[0])
    return {"score_change": change} if np.isfinite(change) else {}


def _judging() -> EncoderJudging:
    return EncoderJudging(agreement=same_order, measures=score_measures, needs_probes=True)


def _read_probes(path: Path | None) -> tuple[Input, ...]:
    from serving.quality.probes import read_pair_probes

    return read_pair_probes(path)


def _read_labelled(path: Path) -> Sequence[Any]:
    from serving.quality.dataset import refuse_labels

    refuse_labels(path)


def _show(outcome: Outcome, index: int) -> dict[str, Any]:
    return {"relevance_score": float(outcome.rows[index, 0])}


def _to_inputs(texts: Mapping[str, Sequence[str]]) -> tuple[Input, ...]:
    queries, documents = texts["query"], texts["text"]
    if len(queries) not in (1, len(documents)):
        raise InvalidField(
            f"{len(queries)} queries for {len(documents)} texts; send one query for all, or one "
            "for each",
            param="inputs",
        )
    each = queries if len(queries) == len(documents) else [*queries] * len(documents)
    return tuple(zip(each, documents, strict=True))


def _to_outputs(outcome: Outcome) -> Mapping[str, Any]:
    return {"score": outcome.rows[:, 0]}


TASK = Task(
    kind="encoder",
    prepare=prepare,
    open=open_task,
    read_probes=_read_probes,
    read_labelled=_read_labelled,
    floor=0.8,
    tolerance=0.05,
    judging=_judging,
    show=_show,
    tensors=Tensors(
        inputs=(TensorSpec("query", "BYTES", (-1,)), TensorSpec("text", "BYTES", (-1,))),
        outputs=(TensorSpec("score", "FP32", (-1,)),),
        to_inputs=_to_inputs,
        to_outputs=_to_outputs,
    ),
    check=_check,
)
