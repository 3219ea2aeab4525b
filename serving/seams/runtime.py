"""Runtimes: what executes a variant. ``prepare`` makes an artifact, ``open_…`` runs from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from serving.seams.checkpoint import AdapterPlace, Checkpoint, CheckpointFormat, WeightShape
from serving.seams.cores import Cores
from serving.seams.encoder import Arrays, EncoderEngine
from serving.seams.engine import DeviceName, EngineKind
from serving.seams.generator import Decoder, GeneratorEngine
from serving.seams.head import Head


@dataclass(frozen=True, slots=True)
class Combination:
    """What a runtime is asked whether it can do it: one cell of the matrix.

    Attributes:
        recipe: Name of the recipe.
        kind: What would be opened.
        device: Where it would run.
        format: How the checkpoint's weights are written.
        config: What the checkpoint's ``config.json`` says, such as ``model_type``; empty where the
            question is about no checkpoint in particular.
        max_tokens: Most tokens of a generator's sequence; None where that is not the question.
        kv_cache: How a generator keeps keys and values, as of ``VariantConfig``.
        options: Validated options of the recipe; None where the question is about no options in
            particular.
        adapter: Where an adapter would be added; None without one.
    """

    recipe: str
    kind: EngineKind
    device: DeviceName
    format: CheckpointFormat
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    max_tokens: int | None = None
    kv_cache: str = "float"
    options: BaseModel | None = field(default=None, hash=False)
    adapter: AdapterPlace | None = None


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """Everything that ``prepare`` needs.

    Attributes:
        checkpoint: The source that was found.
        recipe: Name of the recipe; likewise its validated ``options``.
        kind: What will be opened from it.
        head: What becomes of an encoder's output; None for a generator.
        device: Where it will run.
        threads: Intra-op threads that preparing may use.
        example: A small batch of an encoder, of more than one row; empty for a generator.
        calibration: Batches to measure activations with; empty unless the recipe calibrates. Of a
            generator each is one text, ``input_ids`` (1, tokens) alone.
        folder: An empty folder for what ``open_…`` will read.
        quantized: The source itself, if its weights are quantized in a form that others wrote, and
            ``checkpoint`` is a copy of the float numbers that they stand for; None of any other.
        adapter: Folder of an adapter that stays beside the weights; None without one. One that is
            merged is in ``checkpoint``.
    """

    checkpoint: Checkpoint
    recipe: str
    options: BaseModel
    kind: EngineKind
    head: Head | None
    device: DeviceName
    threads: int
    example: Arrays
    calibration: Sequence[Arrays]
    folder: Path
    quantized: Checkpoint | None = None
    adapter: Path | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What ``prepare`` says of what it made.

    Attributes:
        weights_bytes: As of ``Footprint``, as far as it is known before it is opened.
        notes: Facts for the manifest that an operator should know, e.g. which layers stayed float.
    """

    weights_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """Everything that ``open_encoder`` needs.

    Attributes:
        folder: What ``prepare`` wrote; it is only read, and may be mapped.
        recipe: Name of the recipe; likewise its validated ``options``.
        head: What becomes of the output.
        device: Where to put the weights.
        threads: Most intra-op threads for CPU kernels.
    """

    folder: Path
    recipe: str
    options: BaseModel
    head: Head
    device: DeviceName
    threads: int


@dataclass(frozen=True, slots=True)
class OpenGeneratorRequest:
    """Everything that ``open_generator`` needs; see ``OpenRequest``.

    Attributes:
        cores: Where each step gets cores from.
        max_running: Sequences that may run at once.
        max_waiting: Sequences that may wait for a place.
        max_tokens: Most tokens of a sequence, prompt and continuation together.
        stuck_after_s: Seconds after which a step counts as stuck.
        kv_cache: As of ``Combination``.
    """

    folder: Path
    recipe: str
    options: BaseModel
    device: DeviceName
    threads: int
    cores: Cores
    max_running: int
    max_waiting: int
    max_tokens: int
    stuck_after_s: float = float("inf")
    kv_cache: str = "float"


@dataclass(frozen=True, slots=True)
class SizeRequest:
    """What sizes are estimated from: no weights, only their shapes."""

    recipe: str
    options: BaseModel
    kind: EngineKind
    device: DeviceName
    shapes: Sequence[WeightShape]
    kv_cache: str = "float"


@dataclass(frozen=True, slots=True)
class SizeEstimate:
    """Estimated sizes in bytes.

    Attributes:
        weights_bytes: As of ``Footprint``.
        process_bytes: Resident memory of a replica before any weights: Python, Ray, the runtime.
        preloaded_bytes: The part of it that replicas share which are forked on one node from a
            process that has imported ``Runtime.preload``.
        extra_bytes: What an open engine keeps beside the weights themselves, e.g. a mapped file
            and a second, packed copy.
        preparing_bytes: Largest memory of the process that prepares.
        kv_number_bytes: Size of a number in a generator's cache of keys and values, its share of
            scales included.
    """

    weights_bytes: int
    process_bytes: int
    extra_bytes: int
    preparing_bytes: int
    kv_number_bytes: float = 0
    preloaded_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Runtime:
    """What executes variants: an entry of the table in ``serving/runtimes``.

    Every function imports what it needs when it is called; those of ``open_encoder`` and
    ``open_generator`` import the runtime, numpy and nothing heavier.

    Attributes:
        summary: What it is, in a few words for operators.
        packages: Names of the installed packages that it runs on; their versions are part of an
            artifact's identity.
        preparing_packages: Names of those that only ``prepare`` needs; likewise.
        extra: The extra of quantserve that brings them; None if it always has them.
        devices: Devices that it has at all, whatever the machine has.
        why_not: Why it cannot do a combination on this machine, in words that say what would be
            possible; None if it can. Asked only if the packages are installed.
        estimate: Sizes before anything is loaded.
        prepare: Write what ``open_…`` will read; runs in a process of its own. Raises
            ``ConfigError`` if the checkpoint cannot be converted.
        open_encoder: Make an engine from what ``prepare`` wrote, in the thread that will run it.
            Raises ``ConfigError`` if the machine cannot run it.
        open_generator: Likewise a generator, which makes a thread of its own; None if it has none.
        open_decoder: Open what a generator on the CPU steps, alone, in the thread that will run it;
            raises likewise. None where the runtime batches by itself: then nothing can be drafted.
        kv_caches: In which forms its generators can keep keys and values, as of ``Combination``.
        adapter_places: Where it can add an adapter, as of ``Adapter``.
        preload: Modules that every replica would import anew at its start. A node imports them
            once and forks the replicas from there, so importing them must not start threads. Empty
            where they are small.
    """

    summary: str
    packages: tuple[str, ...]
    preparing_packages: tuple[str, ...]
    extra: str | None
    devices: tuple[DeviceName, ...]
    why_not: Callable[[Combination], str | None]
    estimate: Callable[[SizeRequest], SizeEstimate]
    prepare: Callable[[PrepareRequest], Prepared]
    open_encoder: Callable[[OpenRequest], EncoderEngine]
    open_generator: Callable[[OpenGeneratorRequest], GeneratorEngine] | None = None
    open_decoder: Callable[[OpenGeneratorRequest], Decoder] | None = None
    kv_caches: tuple[str, ...] = ("float",)
    adapter_places: tuple[AdapterPlace, ...] = ("merged",)
    preload: tuple[str, ...] = ()
