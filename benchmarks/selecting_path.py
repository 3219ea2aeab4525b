"""What the selecting path costs beside the direct one, with one gateway and with several.

Run as ``python -m benchmarks.selecting_path``. For each number of gateways it starts the service
with MiniLM, then asks the same texts on both paths in turns, from one connection and from sixteen.
Each way is printed with its rate and with the CPU time that a request takes of every party (see
``cpu_time.py``). The client shares the machine's cores with the service.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.conditions import conditions
from benchmarks.cpu_time import CpuAccount
from benchmarks.demo_variants import SOURCE, sample_sentences
from benchmarks.http_load import Throughput, measure
from benchmarks.serving_path import BASE64, Spent, per_request, print_cpu
from tests.integration.running_service import RunningService, running_service

CONFIG = """
models:
  - name: minilm
    task: embeddings
    source: {source}
    variants: [fp32, {variant}]
server: {{gateways: {gateways}}}
"""

Round = tuple[Throughput, Spent]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateways", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--variant", default="int8-dynamic", help="of MiniLM, but not fp32")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="length of a round")
    arguments = parser.parse_args()
    print(conditions(len(os.sched_getaffinity(0))))
    for gateways in arguments.gateways:
        text = CONFIG.format(source=SOURCE, variant=arguments.variant, gateways=gateways)
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder, "config.yaml")
            config.write_text(text)
            with running_service(config, Path(folder, "service.log")) as service:
                service.wait_until_probed()
                for connections in arguments.connections:
                    print(f"\n{gateways} gateways, {connections} connections")
                    rounds = compare(service, arguments, connections)
                    for way, found in rounds.items():
                        print(f"  {way:10} {rates(found)}")
                    print_cpu({way: [spent for _, spent in found] for way, found in rounds.items()})


def compare(
    service: RunningService, arguments: argparse.Namespace, connections: int
) -> dict[str, list[Round]]:
    """Ask both ways in turns."""
    variant, texts = arguments.variant, sample_sentences()
    ways = {
        "direct": (f"{service.url}/minilm/{variant}/v1/embeddings", {}),
        "selecting": (f"{service.url}/v1/embeddings", {"model": f"minilm:{variant}"}),
    }
    bodies = {
        way: [{"input": text, **model, **BASE64} for text in texts]
        for way, (_, model) in ways.items()
    }
    for way, (url, _) in ways.items():
        measure(url, bodies[way], connections, 1)
    account = CpuAccount(service, "minilm", variant)
    rounds: dict[str, list[Round]] = {way: [] for way in ways}
    for _ in range(arguments.rounds):
        for way, (url, _) in ways.items():
            before = account.read()
            got = measure(url, bodies[way], connections, arguments.seconds)
            spent = per_request(account.spent(before, account.read()), got.requests)
            rounds[way].append((got, spent))
    return rounds


def rates(rounds: Sequence[Round]) -> str:
    """Medians over rounds."""
    per_second = statistics.median(got.per_second for got, _ in rounds)
    p50_ms = statistics.median(got.p50_ms for got, _ in rounds)
    return f"{per_second:6.1f} requests/s, p50 {p50_ms:6.1f} ms"


if __name__ == "__main__":
    main()
