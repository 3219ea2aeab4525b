"""Recipe ``q4_k_m``: 4-bit weights in blocks of 32 and 256, some in 6 (GGUF's K)."""

from __future__ import annotations

from serving.seams import GeneratorExpectation, Recipe

RECIPE = Recipe(
    summary="4-bit weights in blocks of 32 and 256, some in 6 (GGUF's K)",
    encoder=None,
    # Over three seeds of two models the worst were 0.908, 0.429, 0, 1 and 1.
    # Their rows are shorter than its blocks: tensors got the types that then take its place.
    generator=GeneratorExpectation(
        cosine=0.86,
        same_top=0.36,
        company_change=0.03,
        company_same_top=0.97,
        company_same_text=0.75,
    ),
)
