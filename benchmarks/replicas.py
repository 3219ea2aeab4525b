"""What a replica of MiniLM costs by runtime: memory, start and requests/s, side by side in one run.

Run as ``python -m benchmarks.replicas``. It starts the service with the variants below, reads each
replica's memory and CPU time from the kernel's books as soon as it is ready, then alternates rounds
of requests to all of them on the direct path, with one connection and with 16, beside the same
engine in this process on the same text. After 2,000 mixed batches memory is read again. With
``--infinity PATH`` (its command in an environment of its own) infinity's int8 takes its turns, too.
"""

from __future__ import annotations

import os

from serving.app.ray_environment import KERNEL_THREADS

os.environ.update(KERNEL_THREADS)

import argparse
import contextlib
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.conditions import conditions
from benchmarks.demo_variants import SOURCE, open_variant, sample_sentences
from benchmarks.http_load import measure
from serving.checkpoint import find_checkpoint
from tests.integration.running_service import RunningService, free_port

VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "int8-dynamic": {},
    "fp32-ov": {"recipe": "fp32", "runtime": "openvino"},
    "int8-ov": {"recipe": "int8-static", "runtime": "openvino"},
    "fp32-ort": {"recipe": "fp32", "runtime": "onnxruntime"},
    "int8-ort": {"recipe": "int8-dynamic", "runtime": "onnxruntime"},
}
BASE = "fp32"
MIXED_BATCHES = 2_000
MEMORY = ("VmRSS", "RssAnon", "RssFile")
BASE64 = {"encoding_format": "base64"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="length of a round of one variant")
    parser.add_argument("--batches", type=int, default=MIXED_BATCHES)
    parser.add_argument("--infinity", help="its command; left out without")
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    print(conditions(threads))
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(_config())
        service = RunningService(config, Path(folder, "service.log"))
        try:
            report_start(service)
            service.wait_until_probed()
            with infinity(arguments.infinity, Path(folder, "infinity.log")) as peer:
                report_speed(service, peer, arguments.rounds, arguments.seconds, threads)
            send_mixed_batches(service, arguments.batches)
            report_memory(service, f"after {arguments.batches:,} mixed batches")
        finally:
            service.stop()


def _config() -> str:
    variants = ", ".join(
        "{" + ", ".join(f"{key}: {value}" for key, value in {"name": name, **form}.items()) + "}"
        for name, form in VARIANTS.items()
    )
    return (
        f"models: [{{name: minilm, task: embeddings, source: '{SOURCE}', variants: [{variants}], "
        "quality: {shadow: {rate: 0}}}]\n"
    )


def report_start(service: RunningService) -> None:
    """CPU seconds of each replica's process from its start until it is ready, and its memory."""
    spent: dict[str, float] = {}
    while len(spent) < len(VARIANTS):
        assert service.process.poll() is None, service.log.read_text()
        missing = service.not_ready()
        if missing is not None:
            waiting = {entry["variant"] for entry in missing}
            for variant in VARIANTS.keys() - waiting - spent.keys():
                times = _replica(service, variant).cpu_times()
                spent[variant] = times.user + times.system
        time.sleep(0.1)
    print("\nCPU seconds from process start to ready, artifacts present or prepared before")
    for variant in VARIANTS:
        ratio = spent[variant] / spent[BASE]
        print(f"  {variant:14} {spent[variant]:6.2f}  {ratio:5.2f} of {BASE}")
    report_memory(service, "when ready")


def report_memory(service: RunningService, when: str) -> None:
    """``VmRSS`` with and without pages of files, from ``/proc/PID/status``."""
    figures = {variant: _memory(_replica(service, variant).pid) for variant in VARIANTS}
    print(f"\nresident memory {when}, MiB (ratio to {BASE})")
    print(f"  {'':14} {'VmRSS':>15} {'less file pages':>17} {'file pages':>12}")
    for variant, (whole, private, files) in figures.items():
        of_whole, of_private = (figures[variant][i] / figures[BASE][i] for i in (0, 1))
        print(
            f"  {variant:14} {whole:7.0f} ({of_whole:4.2f}) {private:9.0f} ({of_private:4.2f}) "
            f"{files:12.0f}"
        )


def _memory(pid: int) -> tuple[float, ...]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if ":" in line and "kB" in line}
    return tuple(int(values[name]) / 1024 for name in MEMORY)


def _replica(service: RunningService, variant: str) -> psutil.Process:
    (process,) = service.replica_processes("minilm", variant)
    return process


@contextlib.contextmanager
def infinity(command: str | None, log: Path) -> Iterator[str | None]:
    """Address of infinity's int8 of the same checkpoint; None without a command."""
    if command is None:
        yield None
        return
    port = free_port()
    folder = find_checkpoint("minilm", SOURCE).folder
    options = f"--port {port} --engine torch --dtype int8 --device cpu --no-bettertransformer"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [command, "v2", "--model-id", str(folder), *options.split()],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"},
        )
    try:
        url = f"http://127.0.0.1:{port}"
        while True:
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def report_speed(
    service: RunningService, peer: str | None, rounds: int, seconds: float, threads: int
) -> None:
    """Requests/s and medians of rounds in turns, and the same engines in this process."""
    texts = sample_sentences()
    one = [{"input": texts[0], **BASE64}]
    many = [{"input": text, **BASE64} for text in texts]
    urls = {variant: f"{service.url}/minilm/{variant}/v1/embeddings" for variant in VARIANTS}
    if peer is not None:
        folder = str(find_checkpoint("minilm", SOURCE).folder)
        urls["infinity int8"] = f"{peer}/embeddings"
        named = {"model": folder}
    opened = {name: open_variant(name, threads, **form) for name, form in VARIANTS.items()}
    rates: dict[tuple[str, int], list[float]] = {}
    medians: dict[str, list[float]] = {}
    alone: dict[str, list[float]] = {}
    for round_ in range(rounds + 1):
        for name, url in urls.items():
            extra = named if name not in VARIANTS else {}
            for connections, bodies in ((1, one), (16, many)):
                got = measure(url, [{**body, **extra} for body in bodies], connections, seconds)
                if round_:
                    rates.setdefault((name, connections), []).append(got.per_second)
                    if connections == 1:
                        medians.setdefault(name, []).append(got.p50_ms)
            if name in VARIANTS and round_:
                alone.setdefault(name, []).append(_in_process_ms(opened[name], texts[0], seconds))
    print(f"\ndirect path, medians of {rounds} rounds in turns, {seconds:g} s each")
    print(
        f"  {'':14} {'c = 1, req/s':>20} {'c = 16, req/s':>20} {'p50 at 1, ms':>14} "
        f"{'in process':>11} {'adds':>6}"
    )
    for name in urls:
        cells = []
        for connections in (1, 16):
            own = rates[name, connections]
            base = rates["int8-dynamic", connections]
            ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
            cells.append(f"{statistics.median(own):10.1f} ({ratio:5.2f}×)")
        p50 = statistics.median(medians[name])
        line = f"  {name:14} {cells[0]:>20} {cells[1]:>20} {p50:14.2f}"
        if name in alone:
            pairs = zip(medians[name], alone[name], strict=True)
            adds = statistics.median(through - bare for through, bare in pairs)
            line += f" {statistics.median(alone[name]):11.2f} {adds:6.2f}"
        print(line)
    print("  ×: of torch int8-dynamic in the same round")


def _in_process_ms(opened: Any, text: str, seconds: float) -> float:
    times: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds / 2:
        begun = time.perf_counter()
        task = opened.task
        task.decode(opened.engine.forward(task.collate(task.prepare([text], False))))
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


def send_mixed_batches(service: RunningService, batches: int) -> None:
    """Requests of 1 to 8 texts of every length to each variant."""
    chance = random.Random(0)
    words = " ".join(sample_sentences()).split()
    with httpx.Client(timeout=60) as http:
        for variant in VARIANTS:
            for _ in range(batches):
                length = min(200, int(chance.lognormvariate(3.3, 0.9)) + 1)
                start = chance.randrange(len(words) - length)
                text = " ".join(words[start : start + length])
                rows = chance.choice((1, 1, 1, 2, 3, 4, 6, 8))
                body = {"input": [text] * rows, "truncate": True, **BASE64}
                http.post(
                    f"{service.url}/minilm/{variant}/v1/embeddings", json=body
                ).raise_for_status()


if __name__ == "__main__":
    main()
