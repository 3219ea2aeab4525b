"""What every task on texts needs of a checkpoint, found with transformers."""

from __future__ import annotations

import inspect
from typing import Any, Literal, NamedTuple

import torch
from tokenizers.normalizers import Lowercase, Sequence
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from serving.errors import ConfigError
from serving.rust_panics import panics_as_errors
from serving.seams import Checkpoint
from serving.tasks.checkpoint_files import load_model_config, source_arguments
from serving.tasks.classifier_config import require_classifier
from serving.tasks.sentence_transformers_files import TransformerSettings
from serving.tasks.text_items import TextSettings

NO_LIMIT = 1_000_000
"""Tokenizers without a limit of their own report a huge number."""

AutoClass = Literal["AutoModel", "AutoModelForSequenceClassification"]
_AUTO_CLASSES: dict[AutoClass, Any] = {
    "AutoModel": AutoModel,
    "AutoModelForSequenceClassification": AutoModelForSequenceClassification,
}


class TextModel(NamedTuple):
    """A checkpoint's model without its weights.

    Attributes:
        checkpoint: Where it is from.
        tokenizer: transformers' tokenizer.
        config: transformers' config.
        skeleton: The model on the device ``meta``: its class and its shapes.
    """

    checkpoint: Checkpoint
    tokenizer: Any
    config: Any
    skeleton: torch.nn.Module

    @property
    def inputs(self) -> frozenset[str]:
        """Names of what ``forward`` takes."""
        return frozenset(inspect.signature(self.skeleton.forward).parameters)


def load_text_model(checkpoint: Checkpoint, auto_class: AutoClass) -> TextModel:
    """Load what there is of a text model beside its weights.

    Raises:
        ConfigError: There is no fast tokenizer, or no such model, or padding would change its
            answers.
    """
    config = load_model_config(checkpoint)
    model = TextModel(
        checkpoint,
        _load_tokenizer(checkpoint),
        config,
        _build_skeleton(checkpoint, config, auto_class),
    )
    _refuse_what_padding_changes(model)
    return model


def load_classifier(checkpoint: Checkpoint) -> TextModel:
    """Load what there is of a classifier of texts beside its weights.

    Raises:
        ConfigError: As ``load_text_model``; or the checkpoint's weights are of something else, so
            that its classifier would be a random one.
    """
    model = load_text_model(checkpoint, "AutoModelForSequenceClassification")
    require_classifier(checkpoint, model.config.to_dict())
    return model


def prepare_texts(model: TextModel, transformer: TransformerSettings) -> TextSettings:
    """Settle how texts become batches; ``do_lower_case`` goes into the model's tokenizer."""
    tokenizer = model.tokenizer
    if transformer.do_lower_case:
        _add_lower_case(tokenizer.backend_tokenizer)
    limits = [transformer.max_tokens or tokenizer.model_max_length, _position_limit(model)]
    known = [limit for limit in limits if limit is not None and 0 < limit < NO_LIMIT]
    return TextSettings(
        max_tokens=min(known, default=None),
        pad_id=_pad_id(model),
        pad_type_id=tokenizer.pad_token_type_id,
        takes_type_ids="token_type_ids" in model.inputs.intersection(tokenizer.model_input_names),
        truncation_side=tokenizer.truncation_side,
        splits_special_tokens=tokenizer.split_special_tokens,
    )


def _load_tokenizer(checkpoint: Checkpoint) -> Any:
    try:
        with panics_as_errors():
            tokenizer = AutoTokenizer.from_pretrained(
                checkpoint.folder, **source_arguments(checkpoint), use_fast=True
            )
    except Exception as error:  # whatever the files lead transformers to
        raise ConfigError(f"{checkpoint.folder}: its tokenizer cannot be read: {error}") from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ConfigError(f"{checkpoint.folder}: no fast tokenizer (tokenizer.json) can be made")
    return tokenizer


def _build_skeleton(checkpoint: Checkpoint, config: Any, auto_class: AutoClass) -> torch.nn.Module:
    try:
        with torch.device("meta"):
            model: torch.nn.Module = _AUTO_CLASSES[auto_class].from_config(
                config, trust_remote_code=checkpoint.trust_remote_code
            )
    except Exception as error:  # whatever the config leads the model's code to
        raise ConfigError(
            f"{checkpoint.folder}: transformers makes no {auto_class} of it: {error}"
        ) from error
    return model


def _refuse_what_padding_changes(model: TextModel) -> None:
    where, name = model.checkpoint.folder, type(model.skeleton).__name__
    if "input_ids" not in model.inputs:
        raise ConfigError(f"{where}: {name} takes no input_ids: it is no model of texts")
    if "attention_mask" not in model.inputs:
        raise ConfigError(f"{where}: {name} takes no attention_mask: padding would change answers")
    summary = getattr(model.skeleton, "sequence_summary", None)
    if getattr(summary, "summary_type", None) == "last":
        raise ConfigError(
            f"{where}: {name} answers from the last position of a row, padding included"
        )
    # Such a class finds the last token of each text as the last that is not this one.
    finds_last = "pad_token_id" in inspect.getsource(type(model.skeleton).forward)
    if finds_last and _own_pad_id(model) is None:
        raise ConfigError(
            f"{where}: config.json has no pad_token_id, by which {name} finds the last token of "
            "each text in a batch. Set it to the token that the model was trained with: often that "
            "of the tokenizer's pad_token, else of its eos_token"
        )


def _own_pad_id(model: TextModel) -> int | None:
    pad_id: int | None = getattr(model.config.get_text_config(), "pad_token_id", None)
    return pad_id


def _pad_id(model: TextModel) -> int:
    """The model's own, since models look for that one; where neither has one, any is masked."""
    candidates = (_own_pad_id(model), model.tokenizer.pad_token_id)
    return next((candidate for candidate in candidates if candidate is not None), 0)


def _position_limit(model: TextModel) -> int | None:
    """Most tokens that the model has positions for.

    RoBERTa and its many relatives give their first positions to padding: their text starts at
    ``padding_idx + 1``, which is seen by a module that has both that and a table of positions.
    """
    for module in model.skeleton.modules():
        first, table = (
            getattr(module, "padding_idx", None),
            getattr(getattr(module, "position_embeddings", None), "weight", None),
        )
        if isinstance(first, int) and table is not None:
            return int(table.shape[0]) - first - 1
    config = model.config.get_text_config()
    # MPT, whose table of biases ends there, has it by another name than all others.
    names = ("max_position_embeddings", "max_seq_len")
    limits: list[int | None] = [getattr(config, name, None) for name in names]
    return next((limit for limit in limits if limit is not None), None)


def _add_lower_case(tokenizer: Any) -> None:
    """Lower texts before anything else is done to them, unless the tokenizer does so already."""
    normalizer = tokenizer.normalizer
    is_sequence = isinstance(normalizer, Sequence)
    parts = [normalizer[i] for i in range(len(normalizer))] if is_sequence else [normalizer]
    known = [part for part in parts if part is not None]
    if not any(isinstance(part, Lowercase) for part in known):
        tokenizer.normalizer = Sequence([Lowercase(), *known])
