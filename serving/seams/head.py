"""Heads as data: what becomes of a model's output, whatever runs the model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Pooling = Literal["mean", "cls", "last", "max"]
"""``mean`` weighs every token alike, ``cls`` takes the first, ``last`` the last that is no padding,
``max`` the largest of each number; padding takes part in none."""

Activation = Literal["softmax", "sigmoid", "identity"]


class _Head(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pooled(_Head):
    """One vector per input out of the last hidden states.

    Attributes:
        pooling: How.
        normalize: Whether the vector is scaled to length 1 after that.
    """

    kind: Literal["pooled"] = "pooled"
    pooling: Pooling = "mean"
    normalize: bool = True


class Logits(_Head):
    """The logits of a classifier.

    Attributes:
        activation: What turns them into scores.
    """

    kind: Literal["logits"] = "logits"
    activation: Activation = "softmax"


class PerToken(_Head):
    """The last hidden state of every token.

    Attributes:
        normalize: Whether each is scaled to length 1 after that.
    """

    kind: Literal["per_token"] = "per_token"
    normalize: bool = False


Head = Annotated[Pooled | Logits | PerToken, Field(discriminator="kind")]
