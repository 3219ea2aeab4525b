"""Recipe ``q6_k``: 6-bit weights in blocks of 16 and 256 (GGUF's K)."""

from __future__ import annotations

from serving.seams import GeneratorExpectation, Recipe

RECIPE = Recipe(
    summary="6-bit weights in blocks of 16 and 256 (GGUF's K)",
    encoder=None,
    # Over three seeds of two models the worst were 0.9964, 0.881, 0, 1 and 1.
    # Their rows are shorter than its blocks: tensors got the types that then take its place.
    generator=GeneratorExpectation(
        cosine=0.99,
        same_top=0.83,
        company_change=0.02,
        company_same_top=0.98,
        company_same_text=0.85,
    ),
)
