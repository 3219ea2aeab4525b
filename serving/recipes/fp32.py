"""Recipe ``fp32``: full precision, what the others are judged against."""

from __future__ import annotations

from serving.seams import EncoderExpectation, GeneratorExpectation, Recipe

RECIPE = Recipe(
    summary="float32 weights and activations",
    # Another order of float32 sums, and nothing else.
    encoder=EncoderExpectation(cosine=0.999999, batch_change=1e-5),
    generator=GeneratorExpectation(
        cosine=0.999999,
        same_top=1.0,
        company_change=2e-5,
        company_same_top=1.0,
        company_same_text=1.0,
    ),
)
