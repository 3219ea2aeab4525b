"""Recipe ``stored``: the numbers as the source holds them."""

from __future__ import annotations

from serving.seams import GeneratorExpectation, Recipe

RECIPE = Recipe(
    summary="weights as the source holds them: a GGUF file, or a quantized checkpoint's integers",
    encoder=None,
    # What a file holds decides how close it is; these are for 4 bits, as of ``q4_0``.
    generator=GeneratorExpectation(
        cosine=0.65,
        same_top=0.15,
        company_change=0.03,
        company_same_top=0.97,
        company_same_text=0.75,
    ),
)
