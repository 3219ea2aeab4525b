"""Recipe ``int8-weights``: 8-bit weights, expanded where they are multiplied."""

from __future__ import annotations

from serving.seams import EncoderExpectation, Recipe

RECIPE = Recipe(
    summary="int8 weights, float activations",
    encoder=EncoderExpectation(cosine=0.999, batch_change=0.001),
    generator=None,
)
