"""Recipe ``q2_k``: 2-bit weights in blocks of 16 and 256, some in 3 and 4 (GGUF's K)."""

from __future__ import annotations

from serving.seams import GeneratorExpectation, Recipe

RECIPE = Recipe(
    summary="2-bit weights in blocks of 16 and 256, some in 3 and 4 (GGUF's K)",
    encoder=None,
    # The worst of two models were 0.733, 0.235, 0, 1 and 1.
    # Their rows are shorter than its blocks: tensors got the types that then take its place.
    generator=GeneratorExpectation(
        cosine=0.62,
        same_top=0.15,
        company_change=0.03,
        company_same_top=0.97,
        company_same_text=0.75,
    ),
)
