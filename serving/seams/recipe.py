"""Recipes: how numbers are made, whatever executes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


class NoOptions(BaseModel):
    """Options of a recipe that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class EncoderExpectation:
    """What the contract test asks of an encoder in this recipe, on tiny models of random weights.

    Attributes:
        cosine: Least mean cosine of its rows to those of ``fp32`` on torch.
        batch_change: Largest change of a row, as a share of its length, that company makes.
    """

    cosine: float
    batch_change: float


@dataclass(frozen=True, slots=True)
class GeneratorExpectation:
    """What the contract test asks of a generator in this recipe, on tiny models of random weights.

    Attributes:
        cosine: Least mean cosine of its logits to those of ``fp32`` on torch.
        same_top: Least share of places with the same most probable token as there.
        company_change: Largest change of logits, as a share of their length, that company makes.
        company_same_top: Least share of places with the same most probable token in company.
        company_same_text: Least share of a text before the first token that company changes.
    """

    cosine: float
    same_top: float
    company_change: float
    company_same_top: float
    company_same_text: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the numbers of a variant are made: an entry of the table in ``serving/recipes``.

    Attributes:
        summary: What happens to weights and activations, in a few words for operators.
        encoder: What an encoder in it keeps to; None if there can be none.
        generator: Likewise a generator.
        options: pydantic model of its options.
        calibrates: Whether ``prepare`` needs inputs to measure activations with, by its options.
    """

    summary: str
    encoder: EncoderExpectation | None
    generator: GeneratorExpectation | None
    options: type[BaseModel] = NoOptions
    calibrates: Callable[[Any], bool] = lambda options: False
