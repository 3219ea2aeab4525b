"""What HTTP, Ray Serve and batching add to a bare engine, measured beside it in one run.

Run as ``python -m benchmarks.serving_path``. It starts the service with MiniLM in all variants,
then alternates rounds of: the text encoded and forwarded in this process; the direct path; the
selecting path. Rounds at 16 connections follow, beside the same engine in this process, batching
the same texts in the same way. The client shares the machine's cores with the service, so each
way is printed with the CPU time that a request takes of every party (see ``cpu_time.py``).
"""

from __future__ import annotations

import os

from serving.app.ray_environment import KERNEL_THREADS

os.environ.update(KERNEL_THREADS)

import argparse
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from benchmarks.conditions import conditions
from benchmarks.cpu_time import PARTIES, CpuAccount
from benchmarks.demo_variants import SOURCE, open_variant, sample_sentences
from benchmarks.http_load import measure
from serving.replica.encoder.batching import split_by_cost
from serving.replica.encoder.loading import MAX_BATCH_TOKENS, OpenedEncoder
from tests.integration.running_service import RunningService, running_service

CONFIG = f"""
models:
  - name: minilm
    task: embeddings
    source: {SOURCE}
    variants: [fp32, bf16, int8-dynamic, int4]
"""
CONNECTIONS = 16

Spent = dict[str, tuple[float, float]]
"""On a core, and waiting for one, by party."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=60, help="per round and path, one client")
    parser.add_argument("--seconds", type=float, default=4, help="length of a round at 16 clients")
    parser.add_argument("--variants", nargs="+", default=["fp32", "bf16", "int8-dynamic", "int4"])
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    print(conditions(threads))
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(CONFIG)
        with running_service(config, Path(folder, "service.log")) as service:
            service.wait_until_probed()
            for variant in arguments.variants:
                opened = open_variant(variant, threads)
                measure_latency(service, variant, opened, arguments.rounds, arguments.requests)
                measure_throughput(service, variant, opened, arguments.rounds, arguments.seconds)


def measure_latency(
    service: RunningService, variant: str, opened: OpenedEncoder, rounds: int, requests: int
) -> None:
    text = sample_sentences()[0]
    connection = http.client.HTTPConnection("127.0.0.1", service.port)

    def in_process() -> None:
        task = opened.task
        opened.engine.forward(task.collate(task.prepare([text], False)))

    def post(path: str, body: dict[str, str]) -> Callable[[], None]:
        payload = json.dumps(body)

        def send() -> None:
            connection.request("POST", path, payload, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status == 200

        return send

    ways = {
        "in process": in_process,
        "direct": post(f"/minilm/{variant}/v1/embeddings", {"input": text, **BASE64}),
        "selecting": post(
            "/v1/embeddings", {"model": f"minilm:{variant}", "input": text, **BASE64}
        ),
    }
    for call in ways.values():
        for _ in range(requests):
            call()
    account = CpuAccount(service, "minilm", variant)
    medians: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[Spent]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, call in ways.items():
            before = account.read()
            seconds = [timed(call) for _ in range(requests)]
            cpu[way].append(per_request(account.spent(before, account.read()), requests))
            medians[way].append(statistics.median(seconds) * 1e3)
    base = medians["in process"]
    print(f"\n{variant}, one connection, one text: p50 in ms, median of {rounds} rounds")
    for way, values in medians.items():
        extra = statistics.median(value - own for value, own in zip(values, base, strict=True))
        print(f"  {way:12} {statistics.median(values):7.2f}   {extra:+6.2f} to in process")
    hop = statistics.median(
        s - d for s, d in zip(medians["selecting"], medians["direct"], strict=True)
    )
    print(f"  the gateway's hop adds {hop:.2f} ms")
    print_cpu(cpu)


BASE64 = {"encoding_format": "base64"}


def timed(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure_throughput(
    service: RunningService, variant: str, opened: OpenedEncoder, rounds: int, seconds: float
) -> None:
    texts = sample_sentences()
    url = f"{service.url}/minilm/{variant}/v1/embeddings"
    bodies = [{"input": text, **BASE64} for text in texts]
    measure(url, bodies, CONNECTIONS, seconds)
    in_process_rate(opened, texts, seconds / 2)
    account = CpuAccount(service, "minilm", variant)
    rows = []
    cpu: dict[str, list[Spent]] = {"in process": [], "direct": []}
    for _ in range(rounds):
        batches_before, before = batches(service.url, variant), account.read()
        got = measure(url, bodies, CONNECTIONS, seconds)
        cpu["direct"].append(per_request(account.spent(before, account.read()), got.requests))
        size = average_batch(batches_before, batches(service.url, variant))
        before = account.read()
        own_done, own, own_size = in_process_rate(opened, texts, seconds / 2)
        cpu["in process"].append(per_request(account.spent(before, account.read()), own_done))
        rows.append((got.per_second, size, own, own_size, got.per_second / own))
    rate, size, own, own_size, ratio = map(statistics.median, zip(*rows, strict=True))
    print(
        f"{variant}, {CONNECTIONS} connections, direct path: {rate:.0f} requests/s, mean batch "
        f"{size:.1f}; in process {own:.0f}/s, mean batch {own_size:.1f}; ratio {ratio:.2f} "
        f"(median of {rounds} rounds)"
    )
    print_cpu(cpu)


def per_request(spent: Spent, requests: int) -> Spent:
    """Seconds of a stretch as milliseconds of one of its requests."""
    return {
        party: (on_core * 1e3 / requests, waiting * 1e3 / requests)
        for party, (on_core, waiting) in spent.items()
    }


def print_cpu(cpu: dict[str, list[Spent]]) -> None:
    """Print the median over rounds of what each party spent on a request, one way a line."""
    print("  CPU ms of one request (in brackets: ready to run, waiting for a core)")
    print(" " * 13 + " ".join(f"{party:>13}" for party in PARTIES))
    for way, rounds in cpu.items():
        cells = []
        for party in PARTIES:
            on_core, waiting = (
                statistics.median(spent[party][index] for spent in rounds) for index in (0, 1)
            )
            cells.append(f"{on_core:6.2f} ({waiting:4.2f})")
        print(f"  {way:10} " + " ".join(f"{cell:>13}" for cell in cells))


def batches(url: str, variant: str) -> tuple[float, float]:
    """Forward passes and texts so far."""
    values = {"count": 0.0, "sum": 0.0}
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        for kind in values:
            name = f"quantserve_batch_size_{kind}"
            if line.startswith(name) and f'variant="{variant}"' in line:
                values[kind] += float(line.rpartition(" ")[2])
    return values["count"], values["sum"]


def average_batch(before: tuple[float, float], after: tuple[float, float]) -> float:
    return (after[1] - before[1]) / (after[0] - before[0])


def in_process_rate(
    opened: OpenedEncoder, texts: list[str], seconds: float
) -> tuple[int, float, float]:
    """Texts, texts per second, and mean batch, of the same batching over windows of 16 texts."""
    task = opened.task
    done = passes = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        window = [texts[(done + i) % len(texts)] for i in range(CONNECTIONS)]
        items = task.prepare(window, False)
        for batch in split_by_cost([item.cost for item in items], MAX_BATCH_TOKENS["cpu"]):
            opened.engine.forward(task.collate([items[index] for index in batch]))
            passes += 1
        done += CONNECTIONS
    return done, done / (time.perf_counter() - started), done / passes


if __name__ == "__main__":
    main()
