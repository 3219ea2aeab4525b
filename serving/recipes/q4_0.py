"""Recipe ``q4_0``: 4-bit weights in blocks of 32 (GGUF)."""

from __future__ import annotations

from serving.seams import GeneratorExpectation, Recipe

RECIPE = Recipe(
    summary="4-bit weights in blocks of 32 (GGUF)",
    encoder=None,
    # Over three seeds of two models the worst were 0.733, 0.210, 0.0077, 1 and 1.
    generator=GeneratorExpectation(
        cosine=0.65,
        same_top=0.15,
        company_change=0.03,
        company_same_top=0.97,
        company_same_text=0.75,
    ),
)
