"""Which model and variant a request asks for. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.config import AUTO
from serving.errors import ConflictingChoice, InvalidField, Unknown
from serving.seams import ServedModel

VARIANT_HEADER = "x-variant"


@dataclass(frozen=True, slots=True)
class Choice:
    """One explicit choice: ``value``, and where it stands, e.g. ``header X-Variant``."""

    where: str
    value: str


def find_model(catalog: Mapping[str, ServedModel], name: str) -> ServedModel | None:
    """The model of that name or alias."""
    if name in catalog:
        return catalog[name]
    return next((model for model in catalog.values() if name in model.aliases), None)


def split_model(catalog: Mapping[str, ServedModel], given: str) -> tuple[str, str | None]:
    """Split ``"minilm:int4"`` into name and variant; a plain name has no variant.

    An alias stands for the name, and may have colons itself: the longest name that is known counts.
    """
    if (model := find_model(catalog, given)) is not None:
        return model.name, None
    known, _, last = given.rpartition(":")
    if known and (model := find_model(catalog, known)) is not None:
        return model.name, last
    name, colon, variant = given.partition(":")
    return name, variant if colon else None


def select(
    catalog: Mapping[str, ServedModel],
    models: Sequence[Choice],
    variants: Sequence[Choice],
    *,
    has_auto: bool = False,
) -> tuple[ServedModel, str]:
    """Resolve a request to a model and one of its variants.

    Args:
        catalog: Served models by name.
        models: Every place of the request that names a model, possibly with a variant suffix.
        variants: Every place that names a variant, in the order of precedence.
        has_auto: Whether ``auto`` may stand in the place of a variant.

    Returns:
        The model, and the chosen variant or else the model's default; either may be ``auto``.

    Raises:
        InvalidField: No model is named.
        ConflictingChoice: Two places name different models or variants.
        Unknown: The model or the variant is not served.
    """
    if not models:
        raise InvalidField("model is missing", param="model")
    parts = [(choice.where, *split_model(catalog, choice.value)) for choice in models]
    names = [Choice(where, name) for where, name, _ in parts]
    suffixes = [
        Choice(f"suffix of {where}", variant) for where, _, variant in parts if variant is not None
    ]
    name = _the_one("model", names)
    if name not in catalog:
        raise Unknown(f"unknown model {name!r}; served: {', '.join(catalog)}", param="model")
    model = catalog[name]
    choices = [*variants, *suffixes]
    variant = _the_one("variant", choices) if choices else model.default_variant
    if variant not in model.variants and not (has_auto and variant == AUTO):
        hint = "; 'auto' is chosen without a path of its own" if variant == AUTO else ""
        raise Unknown(
            f"model {name!r} has no variant {variant!r}; served: {', '.join(model.variants)}{hint}",
            param="variant",
        )
    return model, variant


def _the_one(what: str, choices: Sequence[Choice]) -> str:
    first = choices[0]
    for other in choices[1:]:
        if other.value != first.value:
            raise ConflictingChoice(
                f"{first.where} names {what} {first.value!r}, {other.where} names "
                f"{other.value!r}; name one",
                param=what,
            )
    return first.value
