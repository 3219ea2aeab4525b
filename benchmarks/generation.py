"""Text generation through HTTP, beside a plain loop over the same decoder and beside peers.

Run as ``python -m benchmarks.generation``. It starts the service with SmolLM2 in every recipe that
a runtime makes a generator of here and, in this process, opens the decoders of the same artifacts.
Every round measures, in turns: a plain loop over the decoder (a static cache, no queue, no sampling
but argmax) where the runtime has one, llama.cpp's own loop where that is the runtime, the same
prompts through HTTP on the direct path, and each peer, at 1 and at 8 streams; so drift of the
machine hits all alike. The client shares the machine's cores with the service. ``--peers-python``
names the Python of an environment that has the peers: see ``benchmarks/peers.py``.
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
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

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
from benchmarks.llama_cpp_loop import LlamaCppLoop
from serving.checkpoint import find_checkpoint
from serving.seams import Decoder, GenerationTask, Segment
from tests.integration.running_service import running_service

PROMPT_TOKENS, NEW_TOKENS, LONG_PROMPT_TOKENS = 64, 48, 1_000
STREAMS = (1, 8)
PEERS = ("llama.cpp", "openvino-genai")


@dataclass(slots=True)
class MeasuredRound:
    """One measurement.

    Attributes:
        total: Tokens/s summed over the streams, prefill included.
        decode: Tokens/s summed over the streams, from each stream's first token on.
        first: Seconds to the first token; of several streams, until all have it (plain loop and
            peers) or the median (HTTP).
    """

    total: float
    decode: float
    first: float


Rounds = dict[tuple[str, str, int], list[MeasuredRound]]


def main() -> None:
    forms = possible_forms()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--variants", nargs="+", default=list(forms), choices=list(forms))
    parser.add_argument("--peers-python", default=None)
    arguments = parser.parse_args()
    print(conditions(arguments.threads))
    generators = {
        name: prepare_generator(name, forms[name], arguments.threads) for name in arguments.variants
    }
    task = next(iter(generators.values())).open_task(MAX_TOKENS)
    opened = {name: generator.open_decoder() for name, generator in generators.items()}
    decoders = {name: decoder for name, decoder in opened.items() if decoder is not None}
    loops = {
        name: LlamaCppLoop(
            generator.artifact.weights_folder, MAX_RUNNING, MAX_TOKENS, arguments.threads
        )
        for name, generator in generators.items()
        if generator.variant.runtime == "llama.cpp"
    }
    prompts = choose_prompts(task, decoders, (arguments.rounds + 1) * sum(STREAMS))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = folder / "config.yaml"
        config.write_text(service_config(generators))
        service = stack.enter_context(running_service(config, folder / "service.log"))
        service.wait_until_probed()
        peers = [
            stack.enter_context(running_peer(arguments.peers_python, peer, prompts, folder))
            for peer in (PEERS if arguments.peers_python else ())
        ]
        names = list(generators)
        ways = Ways(decoders, loops, service.url, peers)
        report(measure_rounds(arguments.rounds, names, ways, prompts))
        for variant in names:
            asyncio.run(report_long_prompt(service.url, variant, prompts, task))


def service_config(generators: Mapping[str, DemoGenerator]) -> str:
    variants = [
        {
            "name": name,
            "recipe": generator.variant.recipe,
            "runtime": generator.variant.runtime,
            "threads": generator.threads,
            "source": GGUF if generator.variant.recipe == "stored" else SOURCE,
        }
        for name, generator in generators.items()
    ]
    # JSON is YAML, too.
    return json.dumps(
        {"models": [{"name": "smollm2", "task": TASK, "source": SOURCE, "variants": variants}]}
    )


@dataclass(frozen=True, slots=True)
class BenchmarkPrompt:
    """The same prompt as text and as token ids."""

    text: str
    token_ids: tuple[int, ...]


def choose_prompts(
    task: GenerationTask, decoders: dict[str, Decoder], count: int
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


def plain_loop(
    decoder: Decoder, prompts: list[BenchmarkPrompt]
) -> tuple[MeasuredRound, list[list[int]]]:
    """Prefill each prompt, then one step after the other for all of them at once."""
    started = time.perf_counter()
    last = []
    for slot, prompt in enumerate(prompts):
        logits = decoder.step([Segment(slot, 0, prompt.token_ids)])
        last.append(int(logits[0].argmax()))
    first = time.perf_counter()
    tokens = [[token] for token in last]
    for position in range(PROMPT_TOKENS, PROMPT_TOKENS + NEW_TOKENS - 1):
        steps = [Segment(slot, position, [token]) for slot, token in enumerate(last)]
        last = decoder.step(steps).argmax(1).tolist()
        for sequence, token in zip(tokens, last, strict=True):
            sequence.append(token)
    ended = time.perf_counter()
    count = len(prompts)
    return MeasuredRound(
        total=count * NEW_TOKENS / (ended - started),
        decode=count * (NEW_TOKENS - 1) / (ended - first),
        first=first - started,
    ), tokens


@dataclass(slots=True)
class Stream:
    """One streamed answer.

    Attributes:
        moments: When each of its events came, ``time.perf_counter``.
        tokens: Tokens that it had, as the usage says.
    """

    started: float = 0.0
    moments: list[float] = field(default_factory=list)
    tokens: int = 0


async def stream(url: str, variant: str, text: str, max_tokens: int = NEW_TOKENS) -> Stream:
    """Send one request on a connection of its own and time its events."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps(
        {
            "prompt": text,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    head = (
        f"POST /smollm2/{variant}/v1/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**20)
    answer = Stream(started=time.perf_counter())
    writer.write(head.encode() + body)
    status = await reader.readline()
    assert b" 200 " in status, status
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            if b'"choices":[]' in line:
                answer.tokens = json.loads(line[6:])["usage"]["completion_tokens"]
            else:
                answer.moments.append(time.perf_counter())
    writer.close()
    return answer


async def through_http(url: str, variant: str, prompts: list[BenchmarkPrompt]) -> MeasuredRound:
    started = time.perf_counter()
    answers = await asyncio.gather(*(stream(url, variant, p.text) for p in prompts))
    ended = time.perf_counter()
    tokens = sum(answer.tokens for answer in answers)
    assert tokens >= 0.9 * NEW_TOKENS * len(prompts), "an answer ended early"
    decoding = ended - statistics.median(answer.moments[0] for answer in answers)
    return MeasuredRound(
        total=tokens / (ended - started),
        decode=(tokens - len(answers)) / decoding,
        first=statistics.median(answer.moments[0] - answer.started for answer in answers),
    )


@dataclass(slots=True)
class GenerationPeer:
    """A process of ``benchmarks/peers.py`` with its model loaded."""

    name: str
    process: subprocess.Popen[str]

    def measure(self, streams: int) -> MeasuredRound:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{streams}\n")
        self.process.stdin.flush()
        record: dict[str, Any] = json.loads(self.process.stdout.readline())
        return MeasuredRound(
            total=record["tokens_per_s"],
            decode=record["decode_tokens_per_s"],
            first=record["time_to_first_token_s"],
        )


@contextmanager
def running_peer(
    python: str, name: str, prompts: list[BenchmarkPrompt], folder: Path
) -> Iterator[GenerationPeer]:
    file = folder / "prompts.json"
    file.write_text(json.dumps([prompt.token_ids for prompt in prompts]))
    checkpoint = find_checkpoint("smollm2", GGUF)
    gguf = checkpoint.folder / str(checkpoint.gguf_file)
    command = [python, "benchmarks/peers.py", name, str(gguf), "--prompts", str(file)]
    threads = ["--threads", str(len(os.sched_getaffinity(0)))]
    environment = {k: v for k, v in os.environ.items() if k not in KERNEL_THREADS}
    process = subprocess.Popen(
        [*command, *threads],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    print(process.stdout.readline().strip())
    try:
        yield GenerationPeer(name, process)
    finally:
        process.terminate()
        process.wait()


def own_loop(loop: LlamaCppLoop, prompts: list[BenchmarkPrompt]) -> MeasuredRound:
    """As ``plain_loop``, by the engine's own means."""
    token_ids = [prompt.token_ids for prompt in prompts]
    started, first, ended = loop.generate(token_ids, NEW_TOKENS)
    count = len(prompts)
    return MeasuredRound(
        total=count * NEW_TOKENS / (ended - started),
        decode=count * (NEW_TOKENS - 1) / (ended - first),
        first=first - started,
    )


@dataclass(frozen=True, slots=True)
class Ways:
    """In which ways each variant is measured.

    Attributes:
        decoders: By variant, for plain loops.
        loops: By variant, its engine without anything of ours.
        url: Of the service that has all of them.
        peers: Other engines.
    """

    decoders: dict[str, Decoder]
    loops: dict[str, LlamaCppLoop]
    url: str
    peers: list[GenerationPeer]


def measure_rounds(
    rounds: int, variants: list[str], ways: Ways, prompts: list[BenchmarkPrompt]
) -> Rounds:
    """Measure everything once per round; a first round warms and is left out."""
    measured: Rounds = defaultdict(list)
    for round_ in range(rounds + 1):
        # Each prompt once: the service would find a repeated one in its cache.
        fresh = iter(prompts[round_ * sum(STREAMS) :])
        for streams in STREAMS:
            some = list(islice(fresh, streams))
            found: dict[tuple[str, str, int], MeasuredRound] = {}
            for variant in variants:
                if (decoder := ways.decoders.get(variant)) is not None:
                    found[variant, "plain loop", streams] = plain_loop(decoder, some)[0]
                if (loop := ways.loops.get(variant)) is not None:
                    found[variant, "own loop", streams] = own_loop(loop, some)
                http = asyncio.run(through_http(ways.url, variant, some))
                found[variant, "HTTP", streams] = http
            for peer in ways.peers:
                found[peer.name, "peer", streams] = peer.measure(streams)
            if round_ > 0:
                for key, value in found.items():
                    measured[key].append(value)
    return measured


def report(measured: Rounds) -> None:
    print(f"\nprompts of {PROMPT_TOKENS} tokens, {NEW_TOKENS} new, greedy; medians over rounds")
    print(f"{'':15} {'way':12} {'streams':>7} {'tokens/s':>9} {'decode':>8} {'first, ms':>10}")
    for (name, way, streams), rounds in sorted(measured.items(), key=lambda item: item[0][2]):
        total, decode, first = (
            statistics.median(getattr(r, figure) for r in rounds)
            for figure in ("total", "decode", "first")
        )
        print(f"{name:15} {way:12} {streams:7} {total:9.1f} {decode:8.1f} {first * 1e3:10.1f}")
    print("\nratios inside a round, median over rounds (tokens/s with prefill; decode alone)")
    for streams in STREAMS:
        for name in [key[0] for key in measured if key[1:] == ("HTTP", streams)]:
            over = paired(measured, (name, "HTTP", streams), (name, "plain loop", streams))
            print(f"{name}, {streams} streams: HTTP over plain loop {over}")
            if (name, "own loop", streams) in measured:
                own = (name, "own loop", streams)
                ours = paired(measured, (name, "plain loop", streams), own)
                over = paired(measured, (name, "HTTP", streams), own)
                print(f"{name}, {streams} streams: over llama.cpp's own loop, plain loop {ours}")
                print(f"{name}, {streams} streams: over llama.cpp's own loop, HTTP {over}")
            to_fp32 = paired(measured, (name, "HTTP", streams), ("fp32", "HTTP", streams))
            print(f"{name}, {streams} streams: HTTP over fp32's {to_fp32}")
            for peer in PEERS:
                if (peer, "peer", streams) in measured:
                    beside = paired(measured, (name, "HTTP", streams), (peer, "peer", streams))
                    print(f"{name}, {streams} streams: HTTP over {peer} {beside}")


def paired(measured: Rounds, one: tuple[str, str, int], other: tuple[str, str, int]) -> str:
    if other not in measured:
        return "not measured"
    pairs = list(zip(measured[one], measured[other], strict=True))
    total = statistics.median(a.total / b.total for a, b in pairs)
    decode = statistics.median(a.decode / b.decode for a, b in pairs)
    return f"{total:.2f}; {decode:.2f}"


def long_prompt_of(prompts: list[BenchmarkPrompt], number: int, task: GenerationTask) -> str:
    """A text of about 1,000 tokens; another number's shares no beginning with it."""
    turned = prompts[number:] + prompts[:number]
    text = " ".join(prompt.text for prompt in turned)
    # A word is a token or more, and the task refuses texts that are far too long.
    words = text.split()[:LONG_PROMPT_TOKENS]
    while len(task.encode_prompt(" ".join(words))) > LONG_PROMPT_TOKENS:
        words.pop()
    return " ".join(words)


async def report_long_prompt(
    url: str, variant: str, prompts: list[BenchmarkPrompt], task: GenerationTask
) -> None:
    """How a prompt of 1,000 tokens stretches the pauses between the tokens of running streams."""
    # One slot must be free for it.
    running = prompts[: max(STREAMS) - 1]

    async def gaps(long_prompt: str | None) -> tuple[float, float]:
        streams = [
            asyncio.create_task(stream(url, variant, p.text, 2 * NEW_TOKENS)) for p in running
        ]
        first = 0.0
        if long_prompt is not None:
            await asyncio.sleep(1.0)
            first_token = await stream(url, variant, long_prompt, 1)
            first = first_token.moments[0] - first_token.started
        answers = await asyncio.gather(*streams)
        pauses = np.concatenate([np.diff(answer.moments) for answer in answers])
        return float(np.quantile(pauses, 0.99)), first

    quiet, loaded, firsts = [], [], []
    for number in range(4):
        quiet.append((await gaps(None))[0])
        stretched, first = await gaps(long_prompt_of(prompts, number, task))
        loaded.append(stretched)
        firsts.append(first)
    ratio = statistics.median(a / b for a, b in zip(loaded, quiet, strict=True))
    print(
        f"{variant}: {len(running)} streams, p99 pause between tokens "
        f"{statistics.median(quiet) * 1e3:.1f} ms; with a prompt of {LONG_PROMPT_TOKENS} tokens "
        f"arriving {statistics.median(loaded) * 1e3:.1f} ms: {ratio:.2f} times; that prompt's "
        f"first token after {statistics.median(firsts):.2f} s"
    )


if __name__ == "__main__":
    main()
