"""What the routes know of a configured model."""

from __future__ import annotations

from serving.config import ModelConfig, VariantConfig
from serving.seams import ServedModel, VariantForm
from serving.tasks import TASKS


def served_model(model: ModelConfig) -> ServedModel:
    """A model with all its variants, as the gateway serves it."""
    return ServedModel(
        name=model.name,
        task=model.task,
        kind=TASKS[model.task].kind,
        variants={variant.name: _form(variant) for variant in model.variants},
        default_variant=model.default_variant,
        reference=model.reference,
        aliases=model.aliases,
    )


def served_variant(model: ModelConfig, variant: VariantConfig) -> ServedModel:
    """A model with one of its variants alone, as a replica serves it."""
    return ServedModel(
        name=model.name,
        task=model.task,
        kind=TASKS[model.task].kind,
        variants={variant.name: _form(variant)},
        default_variant=variant.name,
        reference=variant.name,
        aliases=model.aliases,
    )


def _form(variant: VariantConfig) -> VariantForm:
    return VariantForm(recipe=variant.recipe, runtime=variant.runtime)
