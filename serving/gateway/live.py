"""Looks at the whole service while somebody listens, and tells what has changed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from serving.errors import NotReady, QueueFull
from serving.gateway.cluster import Cluster
from serving.gateway.living_replicas import Replica, living_replicas
from serving.gateway.readings import Readings
from serving.gateway.variant_status import ApplicationState, application_name
from serving.metrics.reading import MetricsReading, SpanFigures, figures_between, read_pages
from serving.seams import QualityBoard, VariantStatus
from serving.seams.live import LiveEvent, Topic

logger = logging.getLogger("ray.serve.quantserve")

MAX_LISTENERS = 16
"""More would be no console but somebody's script, which has ``/metrics``."""

LIFETIME_S = 60.0
"""A listener asks again after so long, so that a gateway that stops need not wait for it longer."""

TICK_S = 1.0
QUALITY_EVERY = 5
FIGURES_EVERY = 10
MEMORY_EVERY = 60
STATES_EVERY = 10
"""Ticks. Which replicas live is looked at each time; states if that changes or one is not ready."""

GONE = "its process has ended; another is being started"

WINDOW_S = 120.0
"""Percentiles are of the requests of the last so many seconds."""

QUIET_S = 20.0
"""After so long without a change a listener is told that there is none."""

MAX_WAITING = 64
"""Events that a listener may be late by; one that is later asks again, and gets all anew."""

MIB = 2**20

Name = tuple[str, str]


class Live:
    """``LiveFeed`` of the gateway.

    Args:
        cluster: Knows the variants' states, and gathers what replicas have measured.
        board: Knows their quality.
        gateway_pages: What every gateway has counted, as Prometheus text.
        living: Says which replicas live.
    """

    def __init__(
        self,
        cluster: Cluster,
        board: QualityBoard,
        gateway_pages: Callable[[], Awaitable[list[str]]],
        living: Callable[[], frozenset[Replica]] = living_replicas,
    ) -> None:
        self._cluster = cluster
        self._board = board
        self._gateway_pages = gateway_pages
        self._living = living
        self._seen: frozenset[Replica] = frozenset()
        self._listeners: set[asyncio.Queue[LiveEvent]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._known: dict[Topic, dict[str, Mapping[str, Any]]] = {}
        self._statuses: dict[Name, tuple[ApplicationState, VariantStatus]] = {}
        self._readings = Readings(WINDOW_S)
        self._has_failed = False

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    async def listen(self) -> AsyncGenerator[LiveEvent | None, None]:
        """Tell what is known, then what changes; see ``LiveFeed.listen``."""
        if len(self._listeners) >= MAX_LISTENERS:
            raise QueueFull(f"{MAX_LISTENERS} listen already", retry_after_s=int(LIFETIME_S))
        events: asyncio.Queue[LiveEvent] = asyncio.Queue(MAX_WAITING)
        self._listeners.add(events)
        try:
            if self._looking is None or self._looking.done():
                self._known.clear()  # it is of the past
                self._looking = asyncio.create_task(self._look())
            now = time.time()
            for topic, entries in self._known.items():
                yield LiveEvent(topic, now, list(entries.values()))
            async for event in self._until_late(events):
                yield event
        finally:
            self._listeners.discard(events)

    async def _until_late(
        self, events: asyncio.Queue[LiveEvent]
    ) -> AsyncGenerator[LiveEvent | None, None]:
        until = time.monotonic() + LIFETIME_S
        while events in self._listeners and (left := until - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(min(QUIET_S, left)):
                    event = await events.get()
            except TimeoutError:
                yield None
            else:
                yield event

    async def _look(self) -> None:
        """Look as long as somebody listens; what one part cannot say must not hide the others."""
        tick = 0
        while self._listeners:
            started = time.monotonic()
            await self._try(partial(self._look_at_states, is_due=tick % STATES_EVERY == 0))
            if tick % QUALITY_EVERY == 0:
                await self._try(self._look_at_quality)
            if tick % FIGURES_EVERY == 0:
                method = "metrics" if tick % MEMORY_EVERY == 0 else "counts"
                await self._try(partial(self._look_at_figures, method))
            tick += 1
            await asyncio.sleep(max(TICK_S - (time.monotonic() - started), 0))

    async def _try(self, look: Callable[[], Awaitable[None]]) -> None:
        try:
            await look()
            self._has_failed = False
        except NotReady:
            pass  # said in its states, or comes with the next look
        except Exception as error:  # whatever Ray raises for a process that is gone
            if not self._has_failed:
                logger.warning("what moves in the service cannot be read: %r", error)
            self._has_failed = True

    async def _look_at_states(self, is_due: bool) -> None:
        living = await asyncio.to_thread(self._living)
        are_ready = self._statuses and all(one.ready for _, one in self._statuses.values())
        if living == self._seen and are_ready and not is_due:
            return
        self._seen = living
        applications = {application for application, _ in living}
        states = await self._cluster.states()
        new = []
        for name, state in states.items():
            if state.running and application_name(*name) not in applications:
                self._statuses[name] = state, VariantStatus(*name, False, False, GONE, 0, None)
            elif not self._is_known(name, state):
                new.append(name)
        found = await asyncio.gather(*(self._cluster.status(*name) for name in new))
        for name, status in zip(new, found, strict=True):
            self._statuses[name] = states[name], status
        self._tell("states", {_id(name): _state_entry(self._statuses[name][1]) for name in states})

    def _is_known(self, name: Name, state: ApplicationState) -> bool:
        """Whether a replica has said of itself what it is, and nothing happened to it since."""
        known = self._statuses.get(name)
        return known is not None and known[0] == state and known[1].ready

    async def _look_at_quality(self) -> None:
        report = await self._board.report()
        self._tell("quality", {model.model: asdict(model) for model in report})

    async def _look_at_figures(self, method: str) -> None:
        variants, gateways = await asyncio.gather(
            self._cluster.metrics_pages(method), self._gateway_pages()
        )
        pages = [*gateways, *(page for variant in variants for page in variant.pages)]
        running = sum(variant.running for variant in variants)
        running += await self._cluster.running_gateways()
        seen = self._readings.add(
            read_pages(pages, time.monotonic()),
            {replica for _, replica in self._seen},
            is_whole=len(pages) >= running,
        )
        if seen is None:
            return
        first, before, now = seen
        last, window = figures_between(before, now), figures_between(first, now)
        self._tell(
            "figures",
            {
                _id(name): _figures_entry(name, last[name], window[name], now)
                for name in last
                if name in self._statuses
            },
        )

    def _tell(self, topic: Topic, entries: Mapping[str, Mapping[str, Any]]) -> None:
        known = self._known.get(topic, {})
        changed = [entry for key, entry in entries.items() if known.get(key) != entry]
        self._known[topic] = dict(entries)
        if not changed:
            return
        event = LiveEvent(topic, time.time(), changed)
        for events in list(self._listeners):
            if events.full():
                self._listeners.discard(events)
            else:
                events.put_nowait(event)


def _id(name: Name) -> str:
    return ":".join(name)


def _state_entry(status: VariantStatus) -> dict[str, Any]:
    return {
        "model": status.model,
        "variant": status.variant,
        "state": status.state,
        "reason": status.reason,
        "replicas": status.replicas,
    }


def _figures_entry(
    name: Name, last: SpanFigures, window: SpanFigures, reading: MetricsReading
) -> dict[str, Any]:
    model, variant = name
    return {
        "model": model,
        "variant": variant,
        "requests_per_s": last.requests_per_s,
        "failed_per_s": last.failed_per_s,
        "tokens_per_s": last.tokens_per_s,
        "p50_ms": _ms(window.p50_s),
        "p95_ms": _ms(window.p95_s),
        "core_wait_ms": _ms(window.core_wait_s),
        "answers_per_busy_s": window.answers_per_busy_s,
        "within": [(_ms(bound_s), round(share, 4)) for bound_s, share in window.within],
        **{gauge: _steady(gauge, value) for gauge, value in reading.gauges.get(name, {}).items()},
    }


def _steady(gauge: str, value: float) -> int:
    """A size in whole MiB, or it would be another each time."""
    return round(value / MIB) * MIB if gauge.endswith("_bytes") else round(value)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
