"""The labels that tell variants apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Labels:
    """Model, variant and task; taken from the configuration, never from a request."""

    model: str
    variant: str
    operation: str
