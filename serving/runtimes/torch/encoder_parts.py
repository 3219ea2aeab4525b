"""Where an encoder's parts stand in transformers' models: BERT's layers, by several names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from serving.errors import ConfigError
from serving.runtimes.torch.bert_architectures import why_not_bert


@dataclass(frozen=True, slots=True)
class EmbeddingParts:
    """Tables whose rows are added, and what follows.

    Attributes:
        words: (vocabulary, width).
        positions: (positions, width).
        token_types: (types, width); None without any.
        norm: Of the sum.
        projection: From the tables' width to the layers'; None where they are the same.
        padding_id: Where the model counts positions from this token's id on, leaving it out of the
            count; None where it counts from 0.
    """

    words: nn.Embedding
    positions: nn.Embedding
    token_types: nn.Embedding | None
    norm: nn.LayerNorm
    projection: nn.Linear | None
    padding_id: int | None


@dataclass(frozen=True, slots=True)
class EncoderLayer:
    """Attention over all tokens, then two linear layers; each added to its input and normalised."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_output: nn.Linear
    attention_norm: nn.LayerNorm
    intermediate: nn.Linear
    output: nn.Linear
    output_norm: nn.LayerNorm

    def linear_layers(self) -> tuple[nn.Linear, ...]:
        """Those that every token goes through."""
        return (
            *(self.query, self.key, self.value, self.attention_output),
            *(self.intermediate, self.output),
        )


@dataclass(frozen=True, slots=True)
class Encoder:
    """Everything that computes.

    Attributes:
        embeddings: From token ids to the first layer's input.
        layers: In their order.
        num_heads: Of attention.
        activation: Between the two linear layers, a name of ``bert_architectures.ACTIVATIONS``.
        classifier: Linear layers over the first token's numbers, each with the activation after
            it; empty for hidden states.
    """

    embeddings: EmbeddingParts
    layers: tuple[EncoderLayer, ...]
    num_heads: int
    activation: str
    classifier: tuple[tuple[nn.Linear, str | None], ...]

    def linear_layers(self) -> Iterator[nn.Linear]:
        """Those that every token goes through."""
        if self.embeddings.projection is not None:
            yield self.embeddings.projection
        for layer in self.layers:
            yield from layer.linear_layers()


def find_parts(model: Any, runtime: str) -> Encoder:
    """Take a transformers model apart.

    Args:
        model: The model.
        runtime: For whom, as messages name it.

    Raises:
        ConfigError: It is not one of ``bert_architectures``.
    """
    if (reason := why_not_bert(model.config.to_dict(), runtime)) is not None:
        raise ConfigError(reason)
    try:
        return _FINDERS[model.config.model_type](model)
    except AttributeError as error:  # a model of somebody's own code under the same name
        raise ConfigError(f"it has other parts than transformers' own: {error}") from error


def _bert(model: Any) -> Encoder:
    base = model.base_model
    classifier: tuple[tuple[nn.Linear, str | None], ...] = ()
    if base is not model:
        classifier = ((base.pooler.dense, "tanh"), (model.classifier, None))
    return _of_bert(model, None, classifier)


def _roberta(model: Any) -> Encoder:
    head = getattr(model, "classifier", None)
    classifier = () if head is None else ((head.dense, "tanh"), (head.out_proj, None))
    return _of_bert(model, model.base_model.embeddings.padding_idx, classifier)


def _electra(model: Any) -> Encoder:
    head = getattr(model, "classifier", None)
    classifier = () if head is None else ((head.dense, "gelu"), (head.out_proj, None))
    return _of_bert(model, None, classifier)


def _of_bert(model: Any, padding_id: int | None, classifier: Any) -> Encoder:
    base, tables = model.base_model, model.base_model.embeddings
    embeddings = EmbeddingParts(
        words=tables.word_embeddings,
        positions=tables.position_embeddings,
        token_types=tables.token_type_embeddings,
        norm=tables.LayerNorm,
        projection=getattr(base, "embeddings_project", None),
        padding_id=padding_id,
    )
    layers = tuple(
        EncoderLayer(
            query=layer.attention.self.query,
            key=layer.attention.self.key,
            value=layer.attention.self.value,
            attention_output=layer.attention.output.dense,
            attention_norm=layer.attention.output.LayerNorm,
            intermediate=layer.intermediate.dense,
            output=layer.output.dense,
            output_norm=layer.output.LayerNorm,
        )
        for layer in base.encoder.layer
    )
    config = model.config
    return Encoder(embeddings, layers, config.num_attention_heads, config.hidden_act, classifier)


def _distilbert(model: Any) -> Encoder:
    base, config = model.base_model, model.config
    tables = base.embeddings
    embeddings = EmbeddingParts(
        words=tables.word_embeddings,
        positions=tables.position_embeddings,
        token_types=None,
        norm=tables.LayerNorm,
        projection=None,
        padding_id=None,
    )
    layers = tuple(
        EncoderLayer(
            query=layer.attention.q_lin,
            key=layer.attention.k_lin,
            value=layer.attention.v_lin,
            attention_output=layer.attention.out_lin,
            attention_norm=layer.sa_layer_norm,
            intermediate=layer.ffn.lin1,
            output=layer.ffn.lin2,
            output_norm=layer.output_layer_norm,
        )
        for layer in base.transformer.layer
    )
    classifier: tuple[tuple[nn.Linear, str | None], ...] = ()
    if base is not model:
        classifier = ((model.pre_classifier, "relu"), (model.classifier, None))
    return Encoder(embeddings, layers, config.n_heads, config.activation, classifier)


_FINDERS: Mapping[str, Callable[[Any], Encoder]] = {
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "camembert": _roberta,
    "electra": _electra,
    "distilbert": _distilbert,
}
