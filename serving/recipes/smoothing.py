"""The option of recipes that round activations to 8 bits: how far inputs are made alike first."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SmoothingOptions(BaseModel):
    """Options of ``int8-dynamic`` and ``int8-static``.

    Attributes:
        smooth: SmoothQuant's alpha (arXiv:2211.10438): how much of the spread between a layer's
            inputs goes over to its weights, from 0, where the weights' own spread goes the other
            way, to 1, where all of it does. None leaves it to the runtime.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    smooth: float | None = Field(default=None, ge=0, le=1)
