"""The table of recipes. Adding one is a file here and an entry in ``RECIPES``."""

from __future__ import annotations

from serving.seams import Recipe
from serving.table import Table

GROUP = "quantserve.recipes"
"""Entry points of this group add recipes from other packages."""

RECIPES = Table(
    "recipe",
    Recipe,
    {
        "fp32": "serving.recipes.fp32:RECIPE",
        "bf16": "serving.recipes.bf16:RECIPE",
        "fp8": "serving.recipes.fp8:RECIPE",
        "int8-dynamic": "serving.recipes.int8_dynamic:RECIPE",
        "int8-static": "serving.recipes.int8_static:RECIPE",
        "int8-outlier": "serving.recipes.int8_outlier:RECIPE",
        "int8-weights": "serving.recipes.int8_weights:RECIPE",
        "int4": "serving.recipes.int4:RECIPE",
        "nf4": "serving.recipes.nf4:RECIPE",
        "f16": "serving.recipes.f16:RECIPE",
        "q8_0": "serving.recipes.q8_0:RECIPE",
        "q6_k": "serving.recipes.q6_k:RECIPE",
        "q5_k_m": "serving.recipes.q5_k_m:RECIPE",
        "q4_k_m": "serving.recipes.q4_k_m:RECIPE",
        "q4_0": "serving.recipes.q4_0:RECIPE",
        "q3_k_m": "serving.recipes.q3_k_m:RECIPE",
        "q2_k": "serving.recipes.q2_k:RECIPE",
        "stored": "serving.recipes.stored:RECIPE",
    },
    GROUP,
)
