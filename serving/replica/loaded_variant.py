"""What a replica has once its variant is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serving.metrics import ReplicaMetrics
from serving.seams import EncoderBackend, GeneratorBackend

STUCK_AFTER_DEADLINES = 3
"""A forward pass that outlasts so many of a request's deadlines is stuck."""


@dataclass(frozen=True, slots=True)
class LoadedVariant:
    """One variant, opened and wired, whatever its task.

    Attributes:
        backend: Answers requests.
        metrics: What it exports.
        check_health: Raises ``RuntimeError`` if the engine is stuck, or fails its self-test.
        close: Ends the engine's threads.
        remark: What is remarkable of the variant on this machine; None if nothing is, or is known.
    """

    backend: EncoderBackend | GeneratorBackend
    metrics: ReplicaMetrics
    check_health: Callable[[], None]
    close: Callable[[], None]
    remark: Callable[[], str | None] = lambda: None
