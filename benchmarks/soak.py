"""Whether memory or open files grow under an hour of mixed traffic to every variant.

Run as ``python -m benchmarks.soak --minutes 60`` or ``make soak MINUTES=60``. It starts the demo,
and sends texts of random lengths to every variant in turns, half of them on the direct path:
Poisson arrivals, of which one in eight is a generation. Each minute it reads what every process
holds. Printed is the growth from the end of the tenth minute (or the middle of a shorter run) to
the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import orjson
import psutil

from benchmarks.conditions import conditions
from benchmarks.idle import REPLICA, describe
from loadtests.bodies import headers
from loadtests.client import Client, Exchange, clock
from loadtests.inputs import WORDS
from serving.demo import DEMO_CONFIG
from tests.integration.running_service import RunningService, running_service

ENCODERS_PER_S = 7.0
GENERATORS_PER_S = 1.0
MOST_WORDS = {"embeddings": 180, "classification": 350, "generation": 700}
ROUTES = {
    "embeddings": "/v1/embeddings",
    "classification": "/v1/classify",
    "generation": "/v1/completions",
}
NEW_TOKENS = 12
TIMEOUT_S = 120.0
FIRST_MINUTES = 10
SEED = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """What some processes hold.

    Attributes:
        resident: Bytes.
        files: Open ones, connections among them.
    """

    resident: int
    files: int


@dataclass(frozen=True, slots=True)
class Served:
    """A variant."""

    model: str
    variant: str
    task: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=60)
    arguments = parser.parse_args()
    print(conditions(len(os.sched_getaffinity(0))), flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(DEMO_CONFIG, Path(folder, "service.log")) as service,
    ):
        service.wait_until_probed()
        minutes, outcomes = asyncio.run(soak(service, arguments.minutes))
    first = min(FIRST_MINUTES, arguments.minutes // 2)
    _report(minutes[first], minutes[-1], f"minute {first}", f"minute {arguments.minutes}")
    print(f"answers: {dict(outcomes)}")


async def soak(
    service: RunningService, minutes: int
) -> tuple[list[Mapping[str, Holding]], Counter[str]]:
    """What each replica and kind of process held at first and after each minute, and outcomes.

    Args:
        service: Whose variants are asked, with the key that ``loadtests`` sends.
        minutes: Of traffic.
    """
    variants = _served(service.url)
    outcomes: Counter[str] = Counter()
    looks: list[Mapping[str, Holding]] = [_holdings(service)]
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        sending = [
            group.create_task(_send(stack, service.url, some, rate, outcomes))
            for some, rate in (
                ([v for v in variants if v.task != "generation"], ENCODERS_PER_S),
                ([v for v in variants if v.task == "generation"], GENERATORS_PER_S),
            )
        ]
        started = time.monotonic()
        for minute in range(1, minutes + 1):
            await asyncio.sleep(started + 60 * minute - time.monotonic())
            looks.append(await asyncio.to_thread(_holdings, service))
            total = sum(held.resident for held in looks[-1].values())
            print(f"minute {minute}: {total / 2**20:,.0f} MiB, {dict(outcomes)}", flush=True)
        for task in sending:
            task.cancel()
    return looks, outcomes


async def _send(
    stack: AsyncExitStack,
    url: str,
    variants: list[Served],
    rate: float,
    outcomes: Counter[str],
) -> None:
    """Requests to the variants in turns until cancelled; none waits for the last one's answer."""
    random = np.random.default_rng([SEED, len(variants)])
    paths = {ROUTES[v.task] for v in variants}
    direct = [f"/{v.model}/{v.variant}{ROUTES[v.task]}" for v in variants]
    clients = {
        path: await stack.enter_async_context(Client(url + path, headers(), TIMEOUT_S))
        for path in [*paths, *direct]
    }
    number = 0
    async with asyncio.TaskGroup() as group:
        while True:
            await asyncio.sleep(random.exponential(1 / rate))
            to = variants[number // 2 % len(variants)]
            route = ROUTES[to.task]
            path = route if number % 2 else f"/{to.model}/{to.variant}{route}"
            body = _body(to, random)
            group.create_task(_ask(clients[path], Exchange(number, clock()), body, outcomes))
            number += 1


async def _ask(client: Client, exchange: Exchange, body: bytes, outcomes: Counter[str]) -> None:
    await client.send(exchange, body, keep=False)
    outcomes[exchange.outcome] += 1


def _body(to: Served, random: np.random.Generator) -> bytes:
    length = int(np.exp(random.uniform(0, np.log(MOST_WORDS[to.task]))))
    text = " ".join(WORDS[i] for i in random.integers(len(WORDS), size=max(length, 1)))
    body: dict[str, object] = {"model": f"{to.model}:{to.variant}"}
    if to.task == "generation":
        return orjson.dumps(body | {"prompt": text, "max_tokens": NEW_TOKENS, "temperature": 0})
    return orjson.dumps(body | {"input": text})


def _served(url: str) -> list[Served]:
    models = httpx.get(f"{url}/v1/models", headers=headers()).json()
    entries = [e["quantserve"] for e in models["data"]]
    return [Served(e["model"], e["variant"], e["task"]) for e in entries if "variant" in e]


def _holdings(service: RunningService) -> dict[str, Holding]:
    """What each replica holds, and the other processes by what they are."""
    resident: defaultdict[str, int] = defaultdict(int)
    files: defaultdict[str, int] = defaultdict(int)
    for process in [psutil.Process(service.process.pid), *service.descendants()]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            kind = describe(process)
            if kind == REPLICA:
                kind = " ".join(process.cmdline()).split("ServeReplica:")[1].split(":")[0]
            resident[kind] += process.memory_info().rss
            files[kind] += process.num_fds()
    return {kind: Holding(resident[kind], files[kind]) for kind in resident}


def _report(first: Mapping[str, Holding], last: Mapping[str, Holding], then: str, now: str) -> None:
    print(f"\n| process | resident, {then} | {now} | growth | open files, {then} | {now} |")
    print("|---|---|---|---|---|---|")
    rows = [(kind, first[kind], last[kind]) for kind in sorted(first) if kind in last]
    together = ("all", _sum(first), _sum(last))
    for kind, before, after in [*rows, together]:
        print(
            f"| {kind} | {before.resident / 2**20:,.0f} MiB | {after.resident / 2**20:,.0f} MiB "
            f"| {after.resident / before.resident - 1:+.1%} | {before.files} | {after.files} |"
        )


def _sum(held: Mapping[str, Holding]) -> Holding:
    return Holding(sum(h.resident for h in held.values()), sum(h.files for h in held.values()))


if __name__ == "__main__":
    main()
