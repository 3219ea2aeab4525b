"""What a checkpoint would take in every recipe on every runtime, from its headers alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import ceil

from serving.app.cached_numbers import numbers_of_a_token
from serving.checkpoint import SourceHeaders
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.runtimes.matrix import why_not
from serving.seams import Combination, DeviceName, EngineKind, SizeEstimate, SizeRequest

_GENERATORS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Endings of ``architectures`` in ``config.json``."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """One recipe on one runtime and device; sizes in bytes.

    Attributes:
        kv_cache_bytes: All keys and values of ``streams`` sequences of ``context`` tokens; None
            where nothing tells how many numbers they have.
    """

    recipe: str
    runtime: str
    device: DeviceName
    estimate: SizeEstimate
    kv_cache_bytes: int | None

    @property
    def replica_bytes(self) -> int:
        """Resident memory of a replica without what it shares; on CUDA, memory of the GPU.

        A cache of unknown size is left out.
        """
        held = self.estimate.weights_bytes + (self.kv_cache_bytes or 0)
        if self.device == "cuda":
            return held
        process_bytes = self.estimate.process_bytes - self.estimate.preloaded_bytes
        return held + process_bytes + self.estimate.extra_bytes

    @property
    def shared_bytes(self) -> int:
        """What all replicas of the runtime on a machine share, and is there once; 0 on CUDA."""
        return 0 if self.device == "cuda" else self.estimate.preloaded_bytes


@dataclass(frozen=True, slots=True)
class Impossible:
    """A recipe that a runtime has, but not for this checkpoint, and why."""

    recipe: str
    runtime: str
    device: DeviceName
    reason: str


def engine_kind(headers: SourceHeaders) -> EngineKind:
    """Whether a checkpoint writes text or encodes it, by the architecture that it names."""
    if headers.format == "gguf":
        return "generator"
    named = headers.config.get("architectures") or []
    return "generator" if any(str(one).endswith(_GENERATORS) for one in named) else "encoder"


def sizings(headers: SourceHeaders, streams: int, context: int) -> Iterator[Sizing | Impossible]:
    """Every recipe on every runtime and device that has it, in the order of the tables.

    Args:
        headers: What a source says of itself.
        streams: Sequences of a generator that run at once.
        context: Tokens of each.
    """
    kind = engine_kind(headers)
    numbers = numbers_of_a_token(headers.config, headers.shapes) if kind == "generator" else 0
    for recipe, runtime in product(RECIPES, RUNTIMES):
        for device in RUNTIMES[runtime].devices:
            in_general = Combination(recipe, kind, device, "safetensors")
            cell = replace(
                in_general, format=headers.format, config=headers.config, max_tokens=context
            )
            if (reason := why_not(cell, runtime)) is not None:
                if why_not(in_general, runtime) is not None:
                    continue
                yield Impossible(recipe, runtime, device, reason)
                continue
            options = RECIPES[recipe].options()
            estimate = RUNTIMES[runtime].estimate(
                SizeRequest(recipe, options, kind, device, headers.shapes)
            )
            cached = None if numbers is None else numbers * streams * context
            cache = None if cached is None else ceil(estimate.kv_number_bytes * cached)
            yield Sizing(recipe, runtime, device, estimate, cache)
