"""Recipe ``int8-outlier``: ``int8-dynamic``, and the largest inputs of each layer in float."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from serving.recipes.int8_dynamic import RECIPE as INT8_DYNAMIC
from serving.seams import Recipe


class OutlierOptions(BaseModel):
    """Options of the recipe.

    Attributes:
        share: Of a layer's inputs, those that get largest on calibration data and are multiplied in
            float, at least one. LLM.int8() (arXiv:2208.07339) finds between 0.1 and 1 % of inputs
            above its threshold of 6.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(default=0.01, gt=0, le=0.1)


RECIPE = Recipe(
    summary="int8 weights, activations rounded to int8 as they come, a few inputs in float",
    # No input is rounded to coarser steps than in int8-dynamic.
    encoder=INT8_DYNAMIC.encoder,
    generator=INT8_DYNAMIC.generator,
    options=OutlierOptions,
    calibrates=lambda options: True,
)
