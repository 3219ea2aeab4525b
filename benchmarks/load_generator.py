"""How many requests a second the load generator sustains, and how late it sends them.

Run as ``python -m benchmarks.load_generator``. The generator runs on one core, against a server on
another that answers ``{}`` to everything as soon as a request is there: what is late is the
generator's own doing. The CPU time of a request is what the generator takes from a service that
shares its machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from pathlib import Path

from loadtests.conditions import conditions
from loadtests.plan import LoadPlan
from loadtests.results import VariantResult
from loadtests.runner import run_plan

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[500, 1_000, 2_000, 3_000])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help="Be the server.")
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve())
        return
    print(", ".join(f"{key} {value}" for key, value in conditions().items()))
    print(f"Poisson arrivals, {arguments.rounds} rounds of {arguments.seconds:.0f} s each")
    generator_core, *_, server_core = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {generator_core})
    command = [sys.executable, "-m", "benchmarks.load_generator", "--serve"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        os.sched_setaffinity(server.pid, {server_core})
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        for rate in arguments.rates:
            print(row(rate, measure(url, rate, arguments.seconds, arguments.rounds)), flush=True)
    finally:
        server.terminate()
        server.wait()


def measure(url: str, rate: float, seconds: float, rounds: int) -> VariantResult:
    plan = LoadPlan.model_validate(
        {
            "target": {"url": url},
            "scenarios": [
                {
                    "model": "null",
                    "operation": "embeddings",
                    "variants": ["null"],
                    "inputs": {"synthetic": {}},
                    "arrivals": {"kind": "poisson", "rate": rate},
                }
            ],
            "duration_s": seconds,
            "rounds": rounds,
            "warmup_s": 1,
        }
    )
    results = asyncio.run(run_plan(plan, Path(), lambda *_: None))
    return results.scenarios[0].variants[0]


def row(rate: float, found: VariantResult) -> str:
    assert found.lag is not None
    assert found.latency_from_send is not None
    assert found.generator_cpu is not None
    lag = [found.lag.p50, found.lag.p99, found.lag.p999]
    answered = found.latency_from_send.p99
    p50, p99, p999, latency = (f"{e.value * 1e3:.2f}" if e else "–" for e in (*lag, answered))
    return (
        f"{rate:6.0f}/s: achieved {found.achieved_rate.value:7.1f}/s, lag p50 {p50}, p99 {p99}, "
        f"p99.9 {p999} ms; answer p99 {latency} ms; {found.generator_cpu.value * 1e6:.0f} µs of "
        f"CPU per request; errors {found.errors or 'none'}"
    )


async def serve() -> None:
    """Answer every request with the same bytes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


class Answering(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower()
            _, found, rest = head.partition(b"content-length:")
            size = end + 4 + (int(rest.split(b"\r\n")[0]) if found else 0)
            if len(self._received) < size:
                return
            self._received = self._received[size:]
            self._transport.write(ANSWER)


if __name__ == "__main__":
    main()
