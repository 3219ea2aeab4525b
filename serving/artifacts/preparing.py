"""Makes the artifacts of many variants, as many at once as memory and cores allow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from serving.artifacts.ensuring import ensure_key
from serving.artifacts.identity import key_of
from serving.artifacts.key import ArtifactKey
from serving.artifacts.request import ArtifactRequest
from serving.artifacts.store import Artifact, ArtifactStore
from serving.errors import ConfigError
from serving.machine.cores import available_cores

POLL_S = 0.2

State = Literal["waiting", "preparing", "present", "made", "failed"]


@dataclass(frozen=True, slots=True)
class PreparingEvent:
    """What became of a request.

    Attributes:
        request: Which.
        state: ``waiting`` while another process makes it, ``preparing`` while this one has it
            made; at the end ``present`` if it was there, ``made`` or ``failed``.
        artifact: Of ``present`` and ``made``.
        reason: Of ``failed``.
    """

    request: ArtifactRequest
    state: State
    artifact: Artifact | None = None
    reason: str = ""


OnEvent = Callable[[PreparingEvent], None]


@dataclass(frozen=True, slots=True)
class _Work:
    """One artifact, and every request that means it and has the same floor, in their order."""

    key: ArtifactKey
    requests: list[ArtifactRequest] = field(default_factory=list)


def prepare_all(
    requests: Sequence[ArtifactRequest],
    store: ArtifactStore,
    available_bytes: int,
    on_event: OnEvent,
    stop: threading.Event | None = None,
) -> list[PreparingEvent]:
    """Find or make the artifact of every request, in their order; equal ones are made once.

    Args:
        requests: What is asked for.
        store: Where artifacts are.
        available_bytes: Memory that all that are made at once may take together; a single one is
            tried even if it may need more.
        on_event: Called from several threads.
        stop: Ends it early; what is being made is given up.

    Returns:
        The last event of each request, in their order; of those that were given up, none.
    """
    stop = stop or threading.Event()
    last: dict[int, PreparingEvent] = {}

    def report(event: PreparingEvent) -> None:
        last[id(event.request)] = event
        on_event(event)

    pending = _distinct(requests, store, report)
    workers = max(1, min(available_cores(), len(pending)))
    running: dict[Future[None], int] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            while (pending or running) and not stop.is_set():
                while pending and len(running) < workers:
                    needed = pending[0].requests[0].preparing_bytes
                    if running and sum(running.values()) + needed > available_bytes:
                        break
                    work = pending.pop(0)
                    threads = max(1, available_cores() // workers)
                    running[pool.submit(_work_on, work, store, threads, stop, report)] = needed
                finished, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
                for future in finished:
                    del running[future]
                    future.result()
        finally:
            # Whoever still works when this is left early, by Ctrl-C say, gives up.
            if running:
                stop.set()
    ended = ("present", "made", "failed")
    return [
        last[id(request)]
        for request in requests
        if id(request) in last and last[id(request)].state in ended
    ]


def _distinct(
    requests: Sequence[ArtifactRequest], store: ArtifactStore, report: OnEvent
) -> list[_Work]:
    works: dict[tuple[str, float | None], _Work] = {}
    for request in requests:
        try:
            key = key_of(request, store)
        except ConfigError as error:
            report(PreparingEvent(request, "failed", reason=f"{request.name}: {error}"))
            continue
        # What is below the floor of one may reach another's.
        least = None if request.floor is None else request.floor.least
        works.setdefault((key.id, least), _Work(key)).requests.append(request)
    return list(works.values())


def _work_on(
    work: _Work, store: ArtifactStore, threads: int, stop: threading.Event, report: OnEvent
) -> None:
    first, *others = work.requests
    was_made = threading.Event()

    def start() -> None:
        was_made.set()
        report(PreparingEvent(first, "preparing"))

    try:
        artifact = ensure_key(
            first,
            work.key,
            store,
            threads,
            stop,
            on_wait=partial(report, PreparingEvent(first, "waiting")),
            on_start=start,
        )
    except InterruptedError:
        return
    except ConfigError as error:
        for request in work.requests:
            report(PreparingEvent(request, "failed", reason=str(error)))
        return
    report(PreparingEvent(first, "made" if was_made.is_set() else "present", artifact))
    for request in others:
        report(PreparingEvent(request, "present", artifact))
