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
        variants={variant.name: _form(model, variant) for variant in model.variants},
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
        variants={variant.name: _form(model, variant)},
        default_variant=variant.name,
        reference=variant.name,
        aliases=model.aliases,
    )


def _form(model: ModelConfig, variant: VariantConfig) -> VariantForm:
    adapter = variant.adapter or model.adapter
    return VariantForm(variant.recipe, variant.runtime, adapter.source if adapter else None)
