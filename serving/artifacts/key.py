"""The identity of an artifact: everything that decides what is in it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from serving.seams import AdapterPlace, DeviceName

FORMAT = 5
"""Raised whenever what lies in an artifact is made or read differently; old ones are made anew."""

ID_DIGITS, SHORT_ID_DIGITS = 32, 8
"""Digits of an id, and those that are shown to people; commands take any beginning."""


class CalibrationData(BaseModel):
    """Inputs that activations were measured with.

    Attributes:
        name: ``probes``, ``dataset`` or the name of a file.
        count: How many there were.
        digest: sha256 of them, in hexadecimal digits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    count: int
    digest: str


class MeasuredOn(BaseModel):
    """What an artifact's agreement was measured on.

    Attributes:
        inputs: The held-out ones.
        reference: Id of the artifact that answered them, too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: CalibrationData
    reference: str


class AdapterData(BaseModel):
    """What was added to a checkpoint's weights.

    Attributes:
        digest: Of the adapter's files.
        place: As of ``Adapter``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    digest: str
    place: AdapterPlace


class ArtifactKey(BaseModel):
    """Two artifacts with the same key answer the same, and were measured on the same inputs.

    Attributes:
        format: ``FORMAT`` when it was made.
        source: Digest of the checkpoint's files.
        adapter: None, and no part of the id, unless there is one.
        task: Entry of the table of tasks.
        recipe: Entry of the table of recipes.
        options: Every option of the recipe, defaults included.
        runtime: Entry of the table of runtimes.
        versions: Versions of what makes it and what opens it, by package; empty if not installed.
        device: What it is for.
        instructions: What numbers that device multiplies, e.g. ``avx512_vnni`` or ``sm_90``.
        calibration: None unless the recipe calibrates.
        kv_cache: As of ``ArtifactRequest``.
        measured_on: None, and no part of the id, unless a floor was given. The floor itself is no
            part of it: what was measured can be held to any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    source: str
    adapter: AdapterData | None = Field(default=None, exclude_if=lambda adapter: adapter is None)
    task: str
    recipe: str
    options: dict[str, Any]
    runtime: str
    versions: dict[str, str]
    device: DeviceName
    instructions: str
    calibration: CalibrationData | None = None
    kv_cache: str = "float"
    measured_on: MeasuredOn | None = Field(
        default=None, exclude_if=lambda measured_on: measured_on is None
    )

    @property
    def id(self) -> str:
        """Name of the artifact in a store: hexadecimal digits."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:ID_DIGITS]
