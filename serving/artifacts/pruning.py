"""Which artifacts of a store nobody needs any more: pure functions over what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serving.artifacts.store import ArtifactStore
from serving.errors import ConfigError


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact as a list of the store shows it.

    Attributes:
        id: Its id.
        size: Bytes of its files.
        last_used: When it was made or last found, in seconds since 1970.
    """

    id: str
    size: int
    last_used: float


def survey(store: ArtifactStore) -> list[StoredArtifact]:
    """Everything in a store, the least recently used first; what cannot be read counts as empty."""
    stored = []
    for artifact_id in store.ids():
        try:
            artifact = store.look_up(artifact_id)
        except ConfigError:
            artifact = None
        size = 0 if artifact is None else artifact.size
        stored.append(StoredArtifact(artifact_id, size, store.last_used(artifact_id)))
    return sorted(stored, key=lambda one: one.last_used)


def unused_since(stored: Sequence[StoredArtifact], moment: float) -> list[str]:
    """Ids of those that were last used before a moment, in seconds since 1970."""
    return [one.id for one in stored if one.last_used < moment]


def beyond_size(stored: Sequence[StoredArtifact], at_most: float) -> list[str]:
    """Ids of the least recently used, as many as bring the others to ``at_most`` bytes."""
    surplus = sum(one.size for one in stored) - at_most
    chosen = []
    for one in sorted(stored, key=lambda one: one.last_used):
        if surplus <= 0:
            break
        surplus -= one.size
        chosen.append(one.id)
    return chosen
