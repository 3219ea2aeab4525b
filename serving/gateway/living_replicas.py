"""Which replicas live, as Ray's control store knows it at once.

Ray Serve's controller notices a death at its next health check, which is seconds later.
"""

from __future__ import annotations

from ray.serve._private.common import REPLICA_ID_FULL_ID_STR_PREFIX
from ray.util import list_named_actors

Replica = tuple[str, str]
"""Application, and an id that no other replica ever has."""


def living_replicas() -> frozenset[Replica]:
    """Ask the control store, and wait for it; not for an event loop.

    A replica that starts lives already.
    """
    names = [actor["name"] for actor in list_named_actors(all_namespaces=True)]
    return frozenset(
        (application, unique)
        for name in names
        if name.startswith(REPLICA_ID_FULL_ID_STR_PREFIX)
        for application, _, unique in [
            name.removeprefix(REPLICA_ID_FULL_ID_STR_PREFIX).split("#", 2)
        ]
    )
