"""Recipe ``q8_0``: 8-bit weights in blocks of 32 (GGUF)."""

from __future__ import annotations

from serving.seams import GeneratorExpectation, Recipe

RECIPE = Recipe(
    summary="8-bit weights in blocks of 32 (GGUF)",
    encoder=None,
    # Over three seeds of two models the worst were 0.9964, 0.881, 0, 1 and 1.
    generator=GeneratorExpectation(
        cosine=0.99,
        same_top=0.83,
        company_change=0.02,
        company_same_top=0.98,
        company_same_text=0.85,
    ),
)
