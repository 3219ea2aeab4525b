"""Recipe ``bf16``: weights in bfloat16, and activations too where the machine multiplies them."""

from __future__ import annotations

from serving.seams import EncoderExpectation, GeneratorExpectation, Recipe

RECIPE = Recipe(
    summary="bfloat16 weights, and activations where the machine multiplies them",
    # Over four seeds the worst encoder was 0.99991; a last bit can tip the rounding of a later
    # activation by a whole step, of which there are 256 up to the largest (worst change 0.014).
    encoder=EncoderExpectation(cosine=0.9995, batch_change=0.03),
    # Over six seeds of three models the worst were 0.9995, 0.943, 0.022, 0.98 and 0.84.
    generator=GeneratorExpectation(
        cosine=0.999,
        same_top=0.91,
        company_change=0.05,
        company_same_top=0.96,
        company_same_text=0.75,
    ),
)
