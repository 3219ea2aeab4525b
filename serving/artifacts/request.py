"""What an artifact is made of, as the plan asks for it; it travels to replicas and builders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from serving.machine.device import choose_device
from serving.runtimes import RUNTIMES
from serving.seams import Adapter, Checkpoint, DeviceName


class CalibrationOrigin(BaseModel):
    """Where inputs to measure activations with are read.

    Attributes:
        name: ``probes``, ``dataset`` or the name of a file.
        path: File of probes or of labelled data; None takes the probes of the package.
        is_labelled: Whether it holds labelled data.
        count: Most inputs that are taken.
        holds_out: Whether every fifth input is kept from calibrating, to measure agreement on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    path: Path | None
    is_labelled: bool
    count: int
    holds_out: bool = False


class AgreementFloor(BaseModel):
    """What an artifact must reach before it is installed.

    Attributes:
        least: Agreement that is asked for, above 0 and at most 1.
        origin: Where the held-out inputs are read.
        reference: What is agreed with: the model's fp32 on torch. It has no floor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    least: float
    origin: CalibrationOrigin
    reference: ArtifactRequest


class ArtifactRequest(BaseModel):
    """Asks for the artifact of one variant, on whatever node it will run.

    Attributes:
        model: The model's public name, for messages; likewise the variant's.
        variant: See ``model``.
        checkpoint: The source that was found.
        adapter: What is added to its weights; None if nothing is.
        task: Entry of the table of tasks; likewise recipe and runtime.
        recipe: See ``task``.
        runtime: See ``task``.
        options: Every option of the recipe, validated and with its defaults.
        wanted_device: ``auto``, ``cpu`` or ``cuda``.
        calibration: None unless the recipe calibrates.
        preparing_bytes: Estimated memory of the process that prepares.
        kv_cache: As of ``VariantConfig``: artifacts in which it differs are the same files, but
            answer differently, so that evidence of one is none of the other.
        floor: What it must reach; None measures nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    variant: str
    checkpoint: Checkpoint
    adapter: Adapter | None = None
    task: str
    recipe: str
    runtime: str
    options: dict[str, Any]
    wanted_device: str
    calibration: CalibrationOrigin | None
    preparing_bytes: int
    kv_cache: str = "float"
    floor: AgreementFloor | None = None

    @property
    def name(self) -> str:
        """Whom it is for, e.g. ``minilm:int8-ov``."""
        return f"{self.model}:{self.variant}"

    @property
    def device(self) -> DeviceName:
        """The device that it means on this machine.

        Raises:
            ConfigError: The machine has no such device.
        """
        return choose_device(self.wanted_device, RUNTIMES[self.runtime])
