"""Variants that are loaded at once on the same cores, each beside what it does alone.

Run as ``python -m benchmarks.colocation``. Every variant of a mix is kept busy through HTTP (direct
path): an encoder by ``--connections`` clients with one text each, a generator by one stream. In
every round each is measured alone, then all of the mix together. What is printed of a mix is how
much of its work gets done in the time in which one after the other would do it once: the sum over
its variants of the rate together over the rate alone. Then: short requests to an encoder, one every
half second, alone and beside a saturated generator; a generator's steps beside a busy process at
niceness 19; and its steps through the loaded service beside those in a process of their own, which
are measured before the service starts. ``--url`` is of a service that runs already, to compare
versions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from benchmarks.conditions import conditions
from benchmarks.demo_variants import sample_sentences
from serving.app.ray_environment import KERNEL_THREADS
from serving.demo import DEMO_CONFIG
from serving.seams import GREEDY, TokenRequest
from tests.integration.running_service import RunningService

ENCODER, GENERATOR = "minilm", "smollm2"
MIXES = (
    (f"{GENERATOR}/int4", f"{GENERATOR}/fp32"),
    (f"{ENCODER}/fp32", f"{ENCODER}/int8-dynamic"),
    (f"{ENCODER}/int8-ov", f"{ENCODER}/int8-ort"),
    (f"{ENCODER}/int8-dynamic", f"{GENERATOR}/int4"),
    (
        f"{ENCODER}/fp32",
        f"{ENCODER}/int8-dynamic",
        f"{GENERATOR}/int4",
        f"{GENERATOR}/fp32",
    ),
)
NEW_TOKENS, MAX_TOKENS = 48, 256
SHORT_EVERY_S = 0.5
STEPPED = ("int4", "fp32")
"""Variants of the generator whose steps are compared one by one."""

CHOSEN_S = 180.0
"""After the probes: replicas have found out how many threads they use; see ``thread_choice``."""

HOG = "import os\nos.nice(19)\nwhile True: pass"


@dataclass(frozen=True, slots=True)
class Measured:
    """Answers (of a generator: tokens) a second, and seconds of each answer (each token)."""

    rate: float
    seconds: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--url", help="of a service that runs; else the demo is started")
    parser.add_argument("--steps-of", help=argparse.SUPPRESS)  # what the process of its own runs
    arguments = parser.parse_args()
    if arguments.steps_of:
        print(asyncio.run(median_step(arguments.steps_of)))
        return
    print(conditions(len(os.sched_getaffinity(0))))
    steps = {name: step_in_process(name) for name in STEPPED}
    if arguments.url:
        report(arguments.url, arguments, steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        service = RunningService(DEMO_CONFIG, Path(folder, "service.log"))
        try:
            service.wait_until_settled()
            service.wait_until_probed()
            time.sleep(CHOSEN_S)
            report(service.url, arguments, steps)
        finally:
            service.stop()


def report(url: str, arguments: argparse.Namespace, steps: dict[str, float]) -> None:
    """Print every part."""
    rounds, seconds, connections = arguments.rounds, arguments.seconds, arguments.connections
    print(f"\n{rounds} rounds of {seconds:g} s; encoders {connections} connections, generators 1")
    for mix in MIXES:
        report_mix(url, mix, rounds, seconds, connections)
    report_short_requests(url, rounds, seconds)
    report_hog(url, rounds, seconds)
    report_steps(url, rounds, seconds, steps)


def report_mix(url: str, mix: Sequence[str], rounds: int, seconds: float, connections: int) -> None:
    """Print what the variants of a mix do alone and together."""
    alone: dict[str, list[float]] = {name: [] for name in mix}
    together: dict[str, list[float]] = {name: [] for name in mix}
    gains = []
    for _ in range(rounds):
        for name in mix:
            (found,) = asyncio.run(saturate(url, [name], seconds, connections))
            alone[name].append(found.rate)
        for name, found in zip(
            mix, asyncio.run(saturate(url, mix, seconds, connections)), strict=True
        ):
            together[name].append(found.rate)
        gains.append(sum(together[name][-1] / alone[name][-1] for name in mix))
    figures = ", ".join(
        f"{name} {statistics.median(alone[name]):.1f} → {statistics.median(together[name]):.1f}/s"
        for name in mix
    )
    print(f"  {statistics.median(gains):.2f}× of one after the other: {figures}", flush=True)


def report_short_requests(url: str, rounds: int, seconds: float) -> None:
    """Print the p95 of seldom requests to an encoder, alone and beside a busy generator."""
    encoder, generator = f"{ENCODER}/int8-dynamic", f"{GENERATOR}/int4"
    alone: list[float] = []
    beside: list[float] = []
    steps: list[float] = []
    for _ in range(rounds):
        alone += asyncio.run(seldom(url, encoder, None, seconds))[0]
        short, tokens = asyncio.run(seldom(url, encoder, generator, seconds))
        beside, steps = beside + short, steps + tokens
    p95, p95_beside = (1e3 * float(np.percentile(times, 95)) for times in (alone, beside))
    step = 1e3 * statistics.median(steps)
    print(
        f"  {encoder} now and then: p95 {p95:.1f} ms alone, {p95_beside:.1f} beside {generator}, "
        f"a step of which takes {step:.1f}",
        flush=True,
    )


def report_hog(url: str, rounds: int, seconds: float) -> None:
    """Print a generator's time per token, alone and beside a process of niceness 19."""
    for name in (f"{GENERATOR}/int4", f"{GENERATOR}/fp32"):
        quiet, beside = [], []
        for _ in range(rounds):
            (found,) = asyncio.run(saturate(url, [name], seconds, 1))
            quiet.append(statistics.median(found.seconds))
            hog = subprocess.Popen([sys.executable, "-c", HOG])
            try:
                (found,) = asyncio.run(saturate(url, [name], seconds, 1))
            finally:
                hog.kill()
                hog.wait()
            beside.append(statistics.median(found.seconds))
        ratio = statistics.median(b / q for b, q in zip(beside, quiet, strict=True))
        print(
            f"  {name}, a token: {1e3 * statistics.median(quiet):.1f} ms, beside a hog at niceness "
            f"19 {1e3 * statistics.median(beside):.1f} ({ratio:.2f}×)",
            flush=True,
        )


def report_steps(url: str, rounds: int, seconds: float, in_process: dict[str, float]) -> None:
    """Print a generator's time per token through the service, beside that in process."""
    for name, alone in in_process.items():
        medians = []
        for _ in range(rounds):
            (found,) = asyncio.run(saturate(url, [f"{GENERATOR}/{name}"], seconds, 1))
            medians.append(statistics.median(found.seconds))
        served = statistics.median(medians)
        print(
            f"  {GENERATOR}/{name}, a token: {1e3 * alone:.1f} ms in process, {1e3 * served:.1f} "
            f"through the loaded service ({served / alone:.2f}×)",
            flush=True,
        )


def step_in_process(name: str) -> float:
    """Seconds of a decoding step in a process of its own, with the service's settings."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.colocation", "--steps-of", name]
    environment = {**os.environ, **KERNEL_THREADS}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(said.stdout.split()[-1])


async def median_step(name: str) -> float:
    """Likewise, in this process, on all cores."""
    from benchmarks.demo_generators import possible_forms, prepare_generator

    generator = prepare_generator(name, possible_forms()[name], len(os.sched_getaffinity(0)))
    prompt = generator.open_task(MAX_TOKENS).encode_prompt("Tell me a story of a small village.")
    request = TokenRequest(prompt, MAX_TOKENS // 2, frozenset(), GREEDY)
    engine, times = generator.open_engine(), []
    last = None
    async with aclosing(engine.generate(request)) as tokens:
        async for _ in tokens:
            now = time.perf_counter()
            if last is not None:
                times.append(now - last)
            last = now
    engine.close()
    return statistics.median(times)


async def saturate(
    url: str, names: Sequence[str], seconds: float, connections: int
) -> list[Measured]:
    """Keep every variant busy for so long; what each of them did."""
    until = time.perf_counter() + seconds
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        runs = [
            generate(session, url, name, until)
            if name.startswith(GENERATOR)
            else embed(session, url, name, until, connections)
            for name in names
        ]
        return list(await asyncio.gather(*runs))


async def seldom(
    url: str, encoder: str, generator: str | None, seconds: float
) -> tuple[list[float], list[float]]:
    """Seconds of short requests, and of each token of a generator that is busy beside them."""
    until = time.perf_counter() + seconds
    async with aiohttp.ClientSession() as session:
        beside = None
        if generator is not None:
            beside = asyncio.create_task(generate(session, url, generator, until + 1))
        times = []
        while time.perf_counter() < until:
            times.append(await post(session, f"{url}/{encoder}/v1/embeddings", {"input": "Fine."}))
            await asyncio.sleep(SHORT_EVERY_S)
        return times, (await beside).seconds if beside is not None else []


async def embed(
    session: aiohttp.ClientSession, url: str, name: str, until: float, connections: int
) -> Measured:
    """Have clients ask for embeddings, each one text after the other."""
    texts, times = sample_sentences(), []
    started = time.perf_counter()

    async def client(number: int) -> None:
        sent = 31 * number
        while time.perf_counter() < until:
            body = {"input": texts[sent % len(texts)], "encoding_format": "base64"}
            times.append(await post(session, f"{url}/{name}/v1/embeddings", body))
            sent += 1

    await asyncio.gather(*(client(number) for number in range(connections)))
    return Measured(len(times) / (time.perf_counter() - started), times)


async def post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> float:
    """Seconds until the answer."""
    started = time.perf_counter()
    async with session.post(url, json=body) as response:
        await response.read()
        assert response.status == 200, await response.text()
    return time.perf_counter() - started


async def generate(session: aiohttp.ClientSession, url: str, name: str, until: float) -> Measured:
    """Have one client read one stream after the other; the first token of each is left out."""
    times: list[float] = []
    tokens, started, number = 0, time.perf_counter(), 0
    while time.perf_counter() < until:
        body = {
            "prompt": f"Tell me story number {number} of a small village.",
            "max_tokens": NEW_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        number += 1
        last = None
        async with session.post(f"{url}/{name}/v1/completions", json=body) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                if not line.startswith(b"data: {") or not json.loads(line[6:])["choices"]:
                    continue
                now = time.perf_counter()
                if last is not None:
                    times.append(now - last)
                last, tokens = now, tokens + 1
                if now > until:
                    break
    return Measured(tokens / (time.perf_counter() - started), times)


if __name__ == "__main__":
    main()
