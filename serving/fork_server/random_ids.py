"""Ray's random ids in forked processes: each must draw its own.

Ray's generator is seeded when it is first used, and Serve uses it while it is imported. Forks made
after that would all draw the same ids, for objects and tasks too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def unseeded() -> Iterator[None]:
    """Import Serve inside without using Ray's generator: its actor classes draw from the system."""
    from ray import actor

    original: Any = actor.ActorClassID  # type: ignore[attr-defined]

    class FromSystem:
        @staticmethod
        def from_random() -> object:
            return original(os.urandom(original.size()))

    actor.ActorClassID = FromSystem  # type: ignore[attr-defined, assignment]
    try:
        yield
    finally:
        actor.ActorClassID = original  # type: ignore[attr-defined]


def forks_draw_alike() -> bool:
    """Whether two forks of this process would draw the same id, which no service would survive."""
    return _draw_in_fork() == _draw_in_fork()


def _draw_in_fork() -> bytes:
    from ray import UniqueID

    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, UniqueID.from_random().binary())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as drawn:
        identity = drawn.read()
    os.waitpid(child, 0)
    return identity
