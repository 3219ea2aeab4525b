"""A variant: one numeric form of a model, as an entry of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from serving.seams.checkpoint import Checkpoint, WeightShape
from serving.seams.encoder import EncoderEngine, EncoderHead
from serving.seams.footprint import DeviceName
from serving.seams.generator import GeneratorEngine


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """Everything a variant needs to build an engine.

    Attributes:
        checkpoint: The source that was found.
        head: The task's part inside the engine.
        device: Where to put the weights; ``auto`` is resolved before.
        threads: Intra-op threads for CPU kernels.
        options: The recipe's validated options.
    """

    checkpoint: Checkpoint
    head: EncoderHead
    device: DeviceName
    threads: int
    options: BaseModel


@dataclass(frozen=True, slots=True)
class GeneratorRequest:
    """Everything a variant needs to build a generator.

    Attributes:
        checkpoint: The source that was found.
        device: Where to put the weights; ``auto`` is resolved before.
        threads: Intra-op threads for CPU kernels.
        options: The recipe's validated options.
        max_running: Sequences that may run at once.
        max_waiting: Sequences that may wait for a place.
        max_tokens: Most tokens of a sequence, prompt and continuation together.
        stuck_after_s: Seconds after which a step counts as stuck.
    """

    checkpoint: Checkpoint
    device: DeviceName
    threads: int
    options: BaseModel
    max_running: int
    max_waiting: int
    max_tokens: int
    stuck_after_s: float = float("inf")


class NoOptions(BaseModel):
    """Options of a recipe that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Variant:
    """One numeric form: how its numbers are made, what executes it and how to load it.

    Attributes:
        recipe: How the numbers are made, in a few words for operators.
        runtime: What executes it, e.g. ``torch``.
        options: pydantic model of the recipe's options.
        weight_bytes: Packed size in bytes of one tensor of the checkpoint, for estimates made
            without loading it.
        load: Build an encoder; raises ``ConfigError`` if the machine cannot run this variant.
        load_generator: Build a generator; raises as ``load`` does, or if the architecture of the
            model is none that can be generated with.
        generator_weight_bytes: As ``weight_bytes``, for a generator; None if it is the same.
        kv_cache_bytes_per_number: Size of a number in a generator's cache of keys and values, for
            estimates.
    """

    recipe: str
    runtime: str
    weight_bytes: Callable[[WeightShape, Any], int]
    load: Callable[[LoadRequest], EncoderEngine]
    load_generator: Callable[[GeneratorRequest], GeneratorEngine]
    options: type[BaseModel] = NoOptions
    generator_weight_bytes: Callable[[WeightShape, Any], int] | None = None
    kv_cache_bytes_per_number: int = 2
