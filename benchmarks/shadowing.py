"""What sampling live requests for comparison costs those requests.

Run as ``python -m benchmarks.shadowing``. One service holds the same checkpoint twice, as
``plain`` with no request sampled and as ``sampled`` at the default rate. Rounds take turns: an open
loop sends single texts to the direct path of ``int8-dynamic`` at planned times, to one model and
then to the other, so that both meet the same machine. Their percentiles are compared round by
round. The reference answers what is sampled on the same cores: that is the cost. With ``--kill``
the quality process is killed under the same load instead.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import aiohttp
import httpx
import numpy as np

from benchmarks.conditions import conditions
from benchmarks.demo_variants import SOURCE, sample_sentences
from serving.config import ShadowConfig
from tests.integration.running_service import RunningService, running_service

MODEL = """
  - name: {name}
    task: embeddings
    source: {source}
    variants: [fp32, int8-dynamic]
    quality: {{shadow: {{rate: {rate}}}}}
"""
RATES = {"plain": 0.0, "sampled": ShadowConfig().rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=15, help="length of a round and model")
    parser.add_argument("--rate", type=float, default=40, help="requests a second")
    parser.add_argument("--kill", action="store_true", help="kill the quality process instead")
    arguments = parser.parse_args()
    print(conditions(len(os.sched_getaffinity(0))))
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        models = [MODEL.format(name=n, source=SOURCE, rate=rate) for n, rate in RATES.items()]
        config.write_text("models:" + "".join(models))
        with running_service(config, Path(folder, "service.log")) as service:
            service.wait_until_probed()
            if arguments.kill:
                kill(service, arguments.seconds, arguments.rate)
            else:
                measure(service, arguments.rounds, arguments.seconds, arguments.rate)


def measure(service: RunningService, rounds: int, seconds: float, rate: float) -> None:
    asyncio.run(send_all(service, "plain", 5, rate))
    found: dict[str, list[list[float]]] = {name: [] for name in RATES}
    for number in range(rounds):
        # The order changes, so that neither always comes first.
        for name in sorted(RATES, reverse=bool(number % 2)):
            found[name].append(asyncio.run(send_all(service, name, seconds, rate)))
    print(f"\n{rounds} rounds of {seconds:g} s at {rate:g} requests/s; ms, all rounds together")
    for name, runs in found.items():
        latencies = np.concatenate(runs) * 1e3
        p50, p90, p99 = np.percentile(latencies, [50, 90, 99])
        print(f"{name:>8}: p50 {p50:6.2f}  p90 {p90:6.2f}  p99 {p99:6.2f}  n={len(latencies)}")
    for share in (50, 90, 99):
        ratios = [
            float(np.percentile(b, share) / np.percentile(a, share))
            for a, b in zip(found["plain"], found["sampled"], strict=True)
        ]
        print(
            f"p{share}, sampled over plain: median of rounds {statistics.median(ratios):.3f}, "
            f"quartiles {np.percentile(ratios, 25):.3f} to {np.percentile(ratios, 75):.3f}"
        )
    for line in httpx.get(f"{service.url}/metrics").text.splitlines():
        if "quality_samples_total{" in line and 'origin="live"' in line:
            print(line.rsplit(" ", 1)[1], "samples compared")


def kill(service: RunningService, seconds: float, rate: float) -> None:
    """What clients see before the quality process is killed, right after, and later."""
    asyncio.run(send_all(service, "sampled", 5, rate))
    for when in ("before", "killed", "later"):
        if when == "killed":
            title = "ServeReplica:quality:"
            (monitor,) = [p for p in service.descendants() if title in " ".join(p.cmdline())]
            monitor.kill()
        latencies = np.array(asyncio.run(send_all(service, "sampled", seconds, rate))) * 1e3
        p50, p90, p99 = np.percentile(latencies, [50, 90, 99])
        print(f"{when:>8}: p50 {p50:6.2f}  p90 {p90:6.2f}  p99 {p99:6.2f}  n={len(latencies)}")


async def send_all(service: RunningService, model: str, seconds: float, rate: float) -> list[float]:
    """Send requests at planned random times; returns seconds from the plan to each answer."""
    texts = sample_sentences()
    dice = random.Random(7)
    gaps = [dice.expovariate(rate) for _ in range(round(seconds * rate))]
    url = f"{service.url}/{model}/int8-dynamic/v1/embeddings"
    async with aiohttp.ClientSession() as session:
        start = planned = time.perf_counter()
        tasks = []
        for number, gap in enumerate(gaps):
            planned += gap
            await asyncio.sleep(max(planned - time.perf_counter(), 0))
            body = {"input": texts[number % len(texts)], "encoding_format": "base64"}
            tasks.append(asyncio.create_task(send(session, url, body, planned)))
        assert time.perf_counter() - start < 2 * seconds + 5
        return await asyncio.gather(*tasks)


async def send(
    session: aiohttp.ClientSession, url: str, body: dict[str, str], planned: float
) -> float:
    async with session.post(url, json=body) as response:
        await response.read()
        assert response.status == 200
    return time.perf_counter() - planned


if __name__ == "__main__":
    main()
