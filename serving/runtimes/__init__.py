"""The table of variants. Adding one is a file here and an entry in ``VARIANTS``."""

from __future__ import annotations

from importlib import import_module

from serving.errors import ConfigError
from serving.seams import Variant

VARIANTS = {
    "fp32": "serving.runtimes.torch.conversions.fp32:VARIANT",
    "bf16": "serving.runtimes.torch.conversions.bf16:VARIANT",
    "int8-dynamic": "serving.runtimes.torch.conversions.int8_dynamic:VARIANT",
    "int4": "serving.runtimes.torch.conversions.int4:VARIANT",
}
"""Public name to ``module:attribute``; a string, so that validating a name imports nothing."""


def get_variant(name: str) -> Variant:
    """Return the entry ``name``; raises ``ConfigError`` with the known names otherwise."""
    if name not in VARIANTS:
        raise ConfigError(f"unknown variant {name!r}; known: {', '.join(VARIANTS)}")
    module, _, attribute = VARIANTS[name].partition(":")
    variant = getattr(import_module(module), attribute)
    assert isinstance(variant, Variant)
    return variant
