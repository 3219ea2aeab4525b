"""How OpenVINO computes with what each recipe stored; imports no OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from serving.machine.isa import multiplies_bf16, multiplies_int8_exactly

ACTIVATION_GROUP = 64
"""Numbers of an activation that share a scale where it is rounded to int8 as it comes.

Of groups of 32, 64 and 128, MiniLM had a mean cosine of 0.9994, 0.9991 and 0.9987 to fp32, and 64
was as fast as 128 and up to a fifth faster than 32.
"""


@dataclass(frozen=True, slots=True)
class Execution:
    """What the plugin is told of a recipe.

    Attributes:
        precision: Type of the numbers between layers; ``widest`` is bf16 where the CPU multiplies
            it, else f32.
        activation_group: Size of the groups in which activations are rounded to int8 before
            layers with compressed weights; 0 rounds none.
    """

    precision: Literal["f32", "bf16", "widest"]
    activation_group: int = 0

    def properties(self) -> dict[str, str]:
        """The plugin's own names. It chooses both by itself where they are not given."""
        precision = self.precision
        if precision == "widest":
            precision = "bf16" if multiplies_bf16() else "f32"
        return {
            "INFERENCE_PRECISION_HINT": precision,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(self.activation_group),
        }


EXECUTIONS: Mapping[str, Execution] = {
    "fp32": Execution("f32"),
    "bf16": Execution("bf16"),
    "int8-dynamic": Execution("f32", ACTIVATION_GROUP),
    "int8-static": Execution("f32"),
    "int8-weights": Execution("f32"),
    "int4": Execution("widest"),
}

GENERATOR_EXECUTIONS: Mapping[str, Execution] = {
    **{recipe: EXECUTIONS[recipe] for recipe in ("fp32", "bf16", "int8-dynamic", "int8-weights")},
    # In bfloat16 a last bit would tip the rounding of a later number: the logits of a text would
    # depend on the pieces in which it came.
    "int4": Execution("f32"),
    "stored": Execution("f32"),
}
"""Likewise of generators, whose keys and values are cached in the same precision."""


def why_not_here(recipe: str) -> str | None:
    """Why this CPU cannot run a recipe of ``EXECUTIONS`` as it is meant; None if it can.

    The plugin would accept either and silently compute in float32.
    """
    if recipe == "bf16" and not multiplies_bf16():
        return "this CPU does not multiply bfloat16, and OpenVINO would compute in float32"
    if recipe == "int8-dynamic" and not multiplies_int8_exactly():
        return "this CPU has no VNNI, and OpenVINO would leave the activations in float32"
    return None
