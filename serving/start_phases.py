"""How far a replica is that starts, told through Ray's own key-value store.

Ray Serve passes no call on to a replica before its constructor has returned, which is when it has
loaded; so the replica cannot be asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from serving.seams.catalog import Phase

_NAMESPACE = b"quantserve"


def note_phase(application: str, phase: Phase) -> None:
    """Say what the replica in this process does; of several replicas the last word counts.

    Args:
        application: Name of its Serve application.
        phase: What it does from now on.
    """
    _internal_kv_put(_key(application), phase.encode(), overwrite=True, namespace=_NAMESPACE)


def read_phases(applications: Collection[str]) -> Mapping[str, Phase]:
    """What the replicas of these applications said last; without those that said nothing.

    It waits for Ray's control store, once for each.
    """
    found = {
        name: _internal_kv_get(_key(name), namespace=_NAMESPACE) for name in sorted(applications)
    }
    return {name: cast(Phase, phase.decode()) for name, phase in found.items() if phase is not None}


def _key(application: str) -> bytes:
    return f"phase:{application}".encode()
