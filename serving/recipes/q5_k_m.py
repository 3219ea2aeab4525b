"""Recipe ``q5_k_m``: 5-bit weights in blocks of 32 and 256, some in 6 (GGUF's K)."""

from __future__ import annotations

from serving.seams import GeneratorExpectation, Recipe

RECIPE = Recipe(
    summary="5-bit weights in blocks of 32 and 256, some in 6 (GGUF's K)",
    encoder=None,
    # Over three seeds of two models the worst were 0.927, 0.513, 0.0064, 1 and 0.89.
    # Their rows are shorter than its blocks: tensors got the types that then take its place.
    generator=GeneratorExpectation(
        cosine=0.89,
        same_top=0.43,
        company_change=0.03,
        company_same_top=0.97,
        company_same_text=0.75,
    ),
)
