"""Models and variants: what the configuration says of them, and what their replicas do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from serving.seams.engine import DeviceName, EngineKind
from serving.seams.quality import PreparedAgreement


@dataclass(frozen=True, slots=True)
class VariantForm:
    """What the configuration says that a variant is: names of its recipe and its runtime.

    Attributes:
        adapter: Source of what is added to its weights; None if nothing is.
    """

    recipe: str
    runtime: str
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What the configuration says of a model, as far as routes need it.

    Attributes:
        variants: What each of its variants is, by name, in the order of the configuration.
        aliases: Other names by which bodies may call it.
    """

    name: str
    task: str
    kind: EngineKind
    variants: Mapping[str, VariantForm]
    default_variant: str
    reference: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DraftDescription:
    """What proposes tokens to a variant, and what became of them in one replica.

    Attributes:
        variant: Name of the one that proposes.
        tokens: How many at once; ``auto`` where measurements choose.
        accepted: As of ``DraftCounts``, like the two that follow.
        acceptance: See there; None before the first was judged.
    """

    variant: str
    tokens: int | Literal["auto"]
    accepted: int
    rejected: int
    unread: int
    acceptance: float | None


@dataclass(frozen=True, slots=True)
class Description:
    """What one replica says of the variant that it holds.

    Attributes:
        artifact: Id of the artifact that it was opened from.
        weights_bytes: As of ``Footprint``, like the other sizes.
        disk_bytes: Size of the artifact's files.
        max_tokens: Most tokens of a text, or of a prompt with its continuation.
        width: Numbers of an embedding, or classes; 0 for a generator.
        kv_cache_bytes: Size of a generator's cache of keys and values, not part of
            ``weights_bytes``; else 0.
        draft: What proposes tokens to it, if anything does; its weights and cache are counted in.
        prepared_agreement: What was measured before the artifact was installed; None without a
            floor.
        remark: What is remarkable of it on this machine, in a sentence: that it is slower than its
            reference, by what was measured of both. None if nothing is, or nothing is known yet.
    """

    artifact: str
    device: DeviceName
    isa: str
    weights_bytes: int
    disk_bytes: int
    resident_bytes: int
    private_bytes: int
    peak_bytes: int
    load_seconds: float
    max_tokens: int
    width: int
    labels: tuple[str, ...]
    kv_cache_bytes: int = 0
    draft: DraftDescription | None = None
    prepared_agreement: PreparedAgreement | None = None
    remark: str | None = None


Phase = Literal["waiting", "preparing", "loading"]
"""What a variant does that starts: wait for its turn, have its artifact made, or load it."""

State = Phase | Literal["ready", "failed"]


@dataclass(frozen=True, slots=True)
class VariantStatus:
    """State of one variant of a model.

    Attributes:
        ready: Whether it answers requests.
        failed: Whether it will not become ready by itself.
        reason: Why it does not, in words; empty when ready.
        replicas: Replicas that run.
        description: What a replica says of itself; None while none answers.
        phase: How far it is, while it is neither ready nor failed.
    """

    model: str
    variant: str
    ready: bool
    failed: bool
    reason: str
    replicas: int
    description: Description | None
    phase: Phase = "loading"

    @property
    def state(self) -> State:
        """All of it in a word."""
        if self.ready:
            return "ready"
        return "failed" if self.failed else self.phase
