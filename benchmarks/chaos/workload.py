"""Requests at planned times on both paths, whatever the service does, each answer checked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as Folder

import aiohttp

from benchmarks.chaos.answers import SAME, Known, Question, difference, read_answer
from benchmarks.chaos.log import Fate, Path, SentRequest
from loadtests.arrivals import Poisson, planned_times
from loadtests.client import KEEP_ALIVE_S
from loadtests.randomness import random_numbers

clock = time.monotonic

LONGEST_S = 900
"""No load is planned for longer."""

TIMEOUT_S = 45
"""A client that waits longer than the service may take, which answers 504 before."""

HEADERS = {"Content-Type": "application/json"}


@dataclass
class Workload:
    """An open loop: what is sent does not wait for what has been answered.

    Attributes:
        url: Of the service.
        known: Right answers; their questions are what is asked.
        rates: Requests a second by ``MODEL:VARIANT``, half of them on each path.
        seed: Same seed, same requests at the same times.
        log: Every request that is over, in the order of the ends.
        stopped_at: When sending ended.
    """

    url: str
    known: Known
    rates: Mapping[str, float]
    seed: int = 1
    log: list[SentRequest] = field(default_factory=list)
    stopped_at: float = float("inf")
    _waiting: dict[int, float] = field(default_factory=dict)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    def oldest_waiting(self) -> float:
        """When the oldest request was sent that is not over; infinity if there is none."""
        return min(self._waiting.values(), default=float("inf"))

    def stop(self) -> None:
        """Send nothing more."""
        self.stopped_at = clock()
        self._stop.set()

    async def run(self) -> None:
        """Send until it is stopped, and wait for what is under way then."""
        rate = sum(self.rates.values())
        times = planned_times(
            Poisson(kind="poisson", rate=rate), 0, LONGEST_S, (self.seed,), Folder()
        )
        random = random_numbers("inputs", (self.seed,))
        names = list(self.rates)
        shares = [self.rates[name] / rate for name in names]
        asked = {name: [one for one in self.known if one.name == name] for name in names}
        begun = clock()
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
                headers=HEADERS,
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            for number, planned in enumerate(times.tolist()):
                among = asked[names[random.choice(len(names), p=shares)]]
                one = among[random.integers(len(among))]
                path = Path.SELECTING if random.random() < 0.5 else Path.DIRECT
                with contextlib.suppress(TimeoutError):
                    # Even without a wait, so that answers are read when the generator is behind.
                    pause = max(begun + planned - clock(), 0.001)
                    await asyncio.wait_for(self._stop.wait(), pause)
                if self._stop.is_set():
                    return
                group.create_task(self._send(session, number, one, path, begun + planned))

    async def _send(
        self, session: aiohttp.ClientSession, number: int, one: Question, path: Path, sent: float
    ) -> None:
        self._waiting[number] = sent
        prefix = f"/{one.model}/{one.variant}" if path is Path.DIRECT else ""
        body = one.body(names_variant=path is Path.SELECTING)
        try:
            async with session.post(self.url + prefix + one.route, data=body) as response:
                content = await response.read()
            fate, reason = self._judge(one, response, content)
        except TimeoutError:
            fate, reason = Fate.LOST, "no answer"
        except (aiohttp.ClientError, OSError):
            fate, reason = Fate.LOST, "connection"
        finally:
            del self._waiting[number]
        self.log.append(SentRequest(path, one.name, sent, clock(), fate, reason))

    def _judge(
        self, one: Question, response: aiohttp.ClientResponse, content: bytes
    ) -> tuple[Fate, str]:
        status, headers = response.status, response.headers
        if status != 200:
            is_refusal = status in (429, 503) and _has_our_shape(content)
            return (Fate.REFUSED if is_refusal else Fate.LOST), str(status)
        by = f"{headers.get('X-Model')}:{headers.get('X-Variant')}"
        if by != one.name:
            return Fate.WRONG, f"by {by}"
        try:
            off = difference(read_answer(one.route, content), self.known[one])
        except ValueError as error:
            return Fate.WRONG, f"{one.name}: {error}"
        return (Fate.RIGHT, "") if off <= SAME else (Fate.WRONG, f"{one.name} by {off:.1g}")


def _has_our_shape(content: bytes) -> bool:
    try:
        error = json.loads(content)["error"]
        return isinstance(error, dict) and {"message", "type", "code"} <= error.keys()
    except (ValueError, LookupError, TypeError):
        return False
