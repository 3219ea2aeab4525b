"""One turn of one variant: sends what is planned when it is planned, and awaits what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtests.client import Client, Exchange, clock
from loadtests.plan import LoadPlan
from loadtests.samples import CUT_OFF, NOT_SENT, OK
from loadtests.stopping import errors_stop, saturation_stops

TICK_S = 1.0
RECENT = 100
MAX_ANSWERS = 2_000
"""Answers of a turn that are kept to compare variants."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a turn stands, once a second.

    Attributes:
        elapsed_s: Of the measured time; negative in the warm-up.
        sent: Requests so far, warm-up included.
        errors: Requests that failed so far.
        in_flight: Requests under way.
        rate: Answers per second since the last moment.
        latency_s: Mean from the planned time, of those answers; None if there are none.
    """

    elapsed_s: float
    sent: int
    errors: int
    in_flight: int
    rate: float
    latency_s: float | None


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """What happened in a turn.

    Attributes:
        exchanges: Every planned request in order of its planned time, warm-up included.
        started: Of the measured time, as of ``clock``.
        duration_s: Measured time; shorter than planned if the turn was stopped.
        stopped: Why it was stopped early, or empty.
        generator_cpu_s: CPU time of this process during the turn.
    """

    exchanges: list[Exchange]
    started: float
    duration_s: float
    stopped: str
    generator_cpu_s: float


class Turn:
    """Runs one turn; make a new one for each.

    Args:
        client: Sends a request.
        plan: Limits and stop conditions.
        bodies: What is sent; requests take one after the other, and begin again at the end.
        duration_s: Measured time.
        observe: Is told once a second where the turn stands; has to be quick.
    """

    def __init__(
        self,
        client: Client,
        plan: LoadPlan,
        bodies: Sequence[bytes],
        duration_s: float,
        observe: Callable[[Moment], None],
    ) -> None:
        self._client = client
        self._plan = plan
        self._bodies = bodies
        self._duration_s = duration_s
        self._observe = observe
        self._started = 0.0
        self._stop = asyncio.Event()
        self._stopped = ""
        self._measured_s = duration_s
        self._in_flight = 0
        self._exchanges: list[Exchange] = []
        self._finished: list[Exchange] = []
        self._group: asyncio.TaskGroup
        self._tasks: set[asyncio.Task[None]] = set()

    async def run_open(self, times: NDArray[np.float64]) -> TurnRecord:
        """Send each request at its planned time, whatever the server does.

        Args:
            times: Seconds from the start of the measured time, rising.
        """

        async def dispatch() -> None:
            for time_ in times.tolist():
                planned = self._started + time_
                # Even without a wait, so that answers are read when the generator is behind.
                await asyncio.sleep(max(planned - clock(), 0))
                if self._stopped:
                    return
                exchange = self._new_exchange(planned)
                if exchange.in_flight > self._plan.max_in_flight:
                    exchange.outcome, exchange.ended = NOT_SENT, clock()
                    self._finish(exchange)
                else:
                    self._spawn(self._send(exchange))

        return await self._run(dispatch)

    async def run_closed(self, users: int) -> TurnRecord:
        """Let each user send the next request when the last one's answer is there.

        A request's planned time is that of its send: a user who waits plans nothing.
        """

        async def user() -> None:
            while not self._stopped and clock() < self._started + self._duration_s:
                await self._send(self._new_exchange(clock()))

        async def dispatch() -> None:
            for _ in range(users):
                self._spawn(user())

        return await self._run(dispatch)

    async def _run(self, dispatch: Callable[[], Coroutine[None, None, None]]) -> TurnRecord:
        # What is there now is not looked at for garbage meanwhile, which would take milliseconds.
        gc.freeze()
        cpu = time.process_time()
        self._started = clock() + self._plan.warmup_s
        try:
            # An error in any of the tasks ends the turn: it is this program's, not the server's.
            async with asyncio.TaskGroup() as self._group:
                watch = self._group.create_task(self._watch())
                await dispatch()
                with contextlib.suppress(TimeoutError):
                    left = self._started + self._duration_s - clock()
                    await asyncio.wait_for(self._stop.wait(), max(left, 0))
                if self._tasks:
                    await asyncio.wait(self._tasks, timeout=self._plan.grace_s)
                self._note_given_up()
                for task in (watch, *self._tasks):
                    task.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            gc.unfreeze()
        return TurnRecord(
            exchanges=self._exchanges,
            started=self._started,
            duration_s=self._measured_s,
            stopped=self._stopped,
            generator_cpu_s=time.process_time() - cpu,
        )

    def _note_given_up(self) -> None:
        now = clock()
        for exchange in self._exchanges:
            if exchange.outcome == CUT_OFF:
                exchange.ended = now

    def _new_exchange(self, planned: float) -> Exchange:
        self._in_flight += 1
        exchange = Exchange(len(self._exchanges), planned, self._in_flight)
        self._exchanges.append(exchange)
        return exchange

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, exchange: Exchange) -> None:
        index = exchange.index
        body = self._bodies[index % len(self._bodies)]
        await self._client.send(exchange, body, keep=index < MAX_ANSWERS)
        self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        self._in_flight -= 1
        self._finished.append(exchange)

    async def _watch(self) -> None:
        """Once a second, tell where the turn stands and see whether it has to stop."""
        errors = 0
        recent: deque[bool] = deque(maxlen=RECENT)
        seen: deque[tuple[float, int, float]] = deque(
            maxlen=int((self._plan.stop.saturation_s or 0) / TICK_S) + 1
        )
        before = clock()
        while True:
            await asyncio.sleep(TICK_S)
            now, finished = clock(), self._finished
            self._finished = []
            went_well = [exchange.outcome == OK for exchange in finished]
            errors += went_well.count(False)
            recent.extend(went_well)
            latencies = [e.ended - e.planned for e in finished if e.outcome == OK]
            latency = sum(latencies) / len(latencies) if latencies else None
            elapsed = now - self._started
            moment = Moment(
                elapsed_s=elapsed,
                sent=len(self._exchanges),
                errors=errors,
                in_flight=self._in_flight,
                rate=len(latencies) / (now - before),
                latency_s=latency,
            )
            before = now
            self._observe(moment)
            if latency is not None:
                seen.append((elapsed, self._in_flight, latency))
            if TICK_S <= elapsed < self._duration_s and not self._stopped:
                self._stopped = errors_stop(recent, self._plan.stop.error_share)
                if self._plan.stop.saturation_s is not None and len(seen) == seen.maxlen:
                    self._stopped = self._stopped or saturation_stops(*zip(*seen, strict=True))
                if self._stopped:
                    self._measured_s = elapsed
                    self._stop.set()
