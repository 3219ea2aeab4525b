"""Text generation in process and through HTTP, beside the engines' own loops and beside peers.

Run as ``python -m benchmarks.generation --peers-python peers/bin/python --vllm-python
vllm/bin/python`` (see ``benchmarks/peers.py`` for these environments; what is left out is not
measured). Two parts:

``in-process``: in every round each variant's decoder in a plain loop, the same under our scheduler,
and, of variants on llama.cpp, llama.cpp's own loop with the same settings and with its default
attention. ``http``: one variant after the other alone in a service, and in every round its decoder
(or llama.cpp's own loop) in this process, the same prompts through HTTP on the direct path, and the
peers. A ratio is the median over rounds of the ratio inside a round, so drift of the machine hits
both alike. The client shares the machine's cores with the service.
"""

from __future__ import annotations

import os

from serving.app.ray_environment import KERNEL_THREADS

# As the service sets it, and before torch loads OpenMP.
os.environ.update(KERNEL_THREADS)

import argparse
import asyncio
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path

from benchmarks.conditions import conditions
from benchmarks.demo_generators import (
    GGUF,
    MAX_RUNNING,
    MAX_TOKENS,
    SOURCE,
    TASK,
    DemoGenerator,
    possible_forms,
    prepare_generator,
)
from benchmarks.demo_variants import REVIEWS
from benchmarks.generation_peers import GGUF_PEERS, PEERS, VLLM, running_peer
from benchmarks.generation_ways import (
    NEW_TOKENS,
    BenchmarkPrompt,
    MeasuredRound,
    own_loop,
    plain_loop,
    through_http,
    through_scheduler,
)
from benchmarks.llama_cpp_loop import LLAMA_CPP_CHOOSES, LlamaCppLoop
from benchmarks.long_prompts import report_long_prompt
from serving.seams import Decoder, GenerationTask, GeneratorEngine
from tests.integration.running_service import RunningService, running_service

PROMPT_TOKENS = 64
STREAMS = (1, 8)
REFERENCE = "fp32"
DEFAULT_VARIANTS = (REFERENCE, "q8_0-llama.cpp", "q4_0-llama.cpp", "q4_1-llama.cpp")
PARTS = ("in-process", "http", "long-prompts")
MIB = 2**20

PLAIN, SCHEDULER, HTTP = "plain loop", "scheduler", "HTTP"
OWN, OWN_CHOOSES, PEER = "own loop", "own loop, its attention", "peer"

Ways = dict[tuple[str, str], Callable[[Sequence[BenchmarkPrompt]], MeasuredRound]]
"""By variant or peer, and the way's name."""

Rounds = dict[tuple[str, str, int], list[MeasuredRound]]
"""Likewise, and by the number of streams."""


def main() -> None:
    forms = possible_forms()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    variants = [name for name in DEFAULT_VARIANTS if name in forms]
    parser.add_argument("--variants", nargs="+", default=variants, choices=list(forms))
    parser.add_argument("--parts", nargs="+", default=list(PARTS[:2]), choices=PARTS)
    parser.add_argument("--peers-python", default=None)
    parser.add_argument("--peers", nargs="*", default=list(GGUF_PEERS), choices=GGUF_PEERS)
    parser.add_argument("--vllm-python", default=None)
    arguments = parser.parse_args()
    print(conditions(arguments.threads))
    generators = {
        name: prepare_generator(name, forms[name], arguments.threads) for name in arguments.variants
    }
    opened = {name: generator.open_decoder() for name, generator in generators.items()}
    decoders = {name: decoder for name, decoder in opened.items() if decoder is not None}
    loops = {
        name: LlamaCppLoop(
            generator.artifact.weights_folder, MAX_RUNNING, MAX_TOKENS, arguments.threads
        )
        for name, generator in generators.items()
        if generator.variant.runtime == "llama.cpp"
    }
    task = next(iter(generators.values())).open_task(MAX_TOKENS)
    prompts = choose_prompts(task, decoders, (arguments.rounds + 1) * sum(STREAMS))
    # Of each variant, what its service is measured beside.
    beside: dict[str, Ways] = {name: {} for name in generators}
    for name, decoder in decoders.items():
        beside[name][name, PLAIN] = partial(_plain, decoder)
    for name, loop in loops.items():
        beside[name][name, OWN] = partial(own_loop, loop)
    if "in-process" in arguments.parts:
        print("\nin process, all variants in turns")
        report_in_process(arguments, generators, beside, prompts)
    if "http" in arguments.parts or "long-prompts" in arguments.parts:
        report_served(arguments, generators, beside, prompts, task)


def _plain(decoder: Decoder, prompts: Sequence[BenchmarkPrompt]) -> MeasuredRound:
    return plain_loop(decoder, prompts)[0]


def report_in_process(
    arguments: argparse.Namespace,
    generators: Mapping[str, DemoGenerator],
    beside: Mapping[str, Ways],
    prompts: Sequence[BenchmarkPrompt],
) -> None:
    """Print all variants' loops, and the same under our scheduler."""
    ways: Ways = {key: way for some in beside.values() for key, way in some.items()}
    with ExitStack() as stack:
        for name, generator in generators.items():
            engine = generator.open_engine()
            stack.callback(engine.close)
            runner = stack.enter_context(asyncio.Runner())
            ways[name, SCHEDULER] = partial(_scheduled, runner, engine)
            if (name, OWN) in ways:
                folder = generator.artifact.weights_folder
                chosen = LlamaCppLoop(
                    folder, MAX_RUNNING, MAX_TOKENS, arguments.threads, LLAMA_CPP_CHOOSES
                )
                ways[name, OWN_CHOOSES] = partial(own_loop, chosen)
        report(measure_rounds(arguments.rounds, ways, prompts))


def _scheduled(
    runner: asyncio.Runner, engine: GeneratorEngine, prompts: Sequence[BenchmarkPrompt]
) -> MeasuredRound:
    return runner.run(through_scheduler(engine, prompts))


def report_served(
    arguments: argparse.Namespace,
    generators: Mapping[str, DemoGenerator],
    beside: Mapping[str, Ways],
    prompts: Sequence[BenchmarkPrompt],
    task: GenerationTask,
) -> None:
    """Print each variant alone in a service, beside what runs in this process and the peers."""
    with ExitStack() as stack:
        peers: Ways = {}
        pythons = dict.fromkeys(arguments.peers, arguments.peers_python)
        for name, python in {**pythons, VLLM: arguments.vllm_python}.items():
            if python is not None:
                peer = running_peer(python, name, arguments.threads)
                peers[name, PEER] = stack.enter_context(peer).measure
        for name, generator in generators.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            config = folder / "config.yaml"
            config.write_text(service_config(name, generator))
            with running_service(config, folder / "service.log") as service:
                service.wait_until_probed()
                place = f"{service.url}/smollm2/{name}/v1/completions"
                if "http" in arguments.parts:
                    print(f"\n{name} alone in a service")
                    http: Ways = {(name, HTTP): partial(_through_http, place)}
                    report(measure_rounds(arguments.rounds, http | beside[name] | peers, prompts))
                    print(f"{name}: resident, MiB: {resident_mib(service, name)}")
                if "long-prompts" in arguments.parts:
                    streams = max(STREAMS) - 1
                    asyncio.run(report_long_prompt(place, name, prompts, streams, task))


def _through_http(place: str, prompts: Sequence[BenchmarkPrompt]) -> MeasuredRound:
    return asyncio.run(through_http(place, prompts))


def resident_mib(service: RunningService, name: str) -> str:
    """Of each of a variant's replicas, memory that it shares with other processes in parts."""
    replicas = service.replica_processes("smollm2", name)
    return ", ".join(f"{process.memory_full_info().pss / MIB:.0f}" for process in replicas)


def service_config(name: str, generator: DemoGenerator) -> str:
    variant = {
        "name": name,
        "recipe": generator.variant.recipe,
        "runtime": generator.variant.runtime,
        "threads": generator.threads,
        "source": GGUF if generator.variant.recipe == "stored" else SOURCE,
    }
    model = {"name": "smollm2", "task": TASK, "source": SOURCE}
    # JSON is YAML, too.
    return json.dumps({"models": [{**model, "variants": [variant]}]})


def choose_prompts(
    task: GenerationTask, decoders: Mapping[str, Decoder], count: int
) -> list[BenchmarkPrompt]:
    """Prompts of exactly 64 tokens that no variant answers with an end within 48 tokens."""
    chosen: list[BenchmarkPrompt] = []
    candidates = review_prompts(task)
    while len(chosen) < count:
        batch = [next(candidates) for _ in range(max(STREAMS))]
        ended = [False] * len(batch)
        for decoder in decoders.values():
            _, tokens = plain_loop(decoder, batch)
            ended = [
                e or not task.stop_tokens.isdisjoint(t) for e, t in zip(ended, tokens, strict=True)
            ]
        chosen += [prompt for prompt, has_ended in zip(batch, ended, strict=True) if not has_ended]
    return chosen[:count]


def review_prompts(task: GenerationTask) -> Iterator[BenchmarkPrompt]:
    lines = REVIEWS.read_text(encoding="utf-8").splitlines()
    text = " ".join(line.split("\t")[2] for line in lines)
    words = text.split()
    for start in range(0, len(words) - 100, 100):
        for end in range(start + 30, start + 70):
            candidate = " ".join(words[start:end])
            ids = task.encode_prompt(candidate)
            if len(ids) == PROMPT_TOKENS:
                yield BenchmarkPrompt(candidate, ids)
                break


def measure_rounds(rounds: int, ways: Ways, prompts: Sequence[BenchmarkPrompt]) -> Rounds:
    """Measure everything once per round; a first round warms and is left out."""
    measured: Rounds = defaultdict(list)
    for round_ in range(rounds + 1):
        # Each prompt once: the service would find a repeated one in its cache.
        fresh = iter(prompts[round_ * sum(STREAMS) :])
        for streams in STREAMS:
            some = list(islice(fresh, streams))
            for (name, way), measure in ways.items():
                found = measure(some)
                if round_ > 0:
                    measured[name, way, streams].append(found)
    return measured


BASES = (OWN, OWN_CHOOSES, PLAIN)
"""What the others of a variant are set beside, where it was measured."""


def report(measured: Rounds) -> None:
    print(f"prompts of {PROMPT_TOKENS} tokens, {NEW_TOKENS} new, greedy; medians over rounds")
    print(f"{'':15} {'way':23} {'streams':>7} {'tokens/s':>9} {'decode':>8} {'first, ms':>10}")
    for (name, way, streams), rounds in sorted(measured.items(), key=lambda item: item[0][2]):
        total, decode, first = (
            statistics.median(getattr(r, figure) for r in rounds)
            for figure in ("total", "decode", "first")
        )
        print(f"{name:15} {way:23} {streams:7} {total:9.1f} {decode:8.1f} {first * 1e3:10.1f}")
    print("ratios inside a round, median over rounds: tokens/s with prefill; decode; first token")
    peers = [(peer, PEER) for peer in PEERS]
    for name, way, streams in measured:
        if way not in (PLAIN, SCHEDULER, HTTP):
            continue
        bases = [(name, base) for base in BASES if base != way]
        bases += peers if way == HTTP else []
        bases += [(REFERENCE, way)] if name != REFERENCE else []
        for base in bases:
            if (*base, streams) in measured:
                ratio = paired(measured[name, way, streams], measured[*base, streams])
                print(f"{name}, {streams} streams: {way} over {' '.join(base)} {ratio}")


def paired(some: list[MeasuredRound], others: list[MeasuredRound]) -> str:
    pairs = list(zip(some, others, strict=True))
    ratios = (
        statistics.median(getattr(a, figure) / getattr(b, figure) for a, b in pairs)
        for figure in ("total", "decode", "first")
    )
    return "; ".join(f"{ratio:.2f}" for ratio in ratios)


if __name__ == "__main__":
    main()
