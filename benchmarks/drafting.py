"""A cheap variant drafts for ``fp32``: tokens a second beside ``fp32`` alone, and what is accepted.

Run as ``python -m benchmarks.drafting``. In this process, each exact variant is opened alone and
once for each draft, all behind the service's own scheduler. Every round measures all of them in
turns on the same prompts, at 1 and at 8 streams, greedy and sampled; so drift of the machine hits
all alike. Seconds of the process's own CPU are given beside those of the clock: on a machine that
others use they say more, above all with ``--threads 1``. Greedy texts are compared token by token.
Then single steps of every decoder are timed, out of which the formula of
``serving/generator/draft_length.py`` says what could be expected.
"""

from __future__ import annotations

import os

from serving.app.ray_environment import KERNEL_THREADS

# As the service sets it, and before torch loads OpenMP.
os.environ.update(KERNEL_THREADS)

import argparse
import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from benchmarks.conditions import conditions
from benchmarks.demo_generators import (
    MAX_TOKENS,
    DemoGenerator,
    possible_forms,
    prepare_generator,
)
from benchmarks.generation import PROMPT_TOKENS, review_prompts
from benchmarks.generation_ways import BenchmarkPrompt
from serving.cores import UnsharedCores
from serving.generator import SlotGenerator
from serving.generator.draft_length import MOST_TOKENS, expected_tokens, interpolated
from serving.generator.drafting import Drafter
from serving.seams import GREEDY, Decoder, DraftCounts, Sampling, Segment, TokenRequest

STREAMS = (1, 8)
HOWS = {"greedy": GREEDY, "sampled": Sampling(0.7, 1, 0, 1, 0, 0, None)}
ROWS = (1, 2, 3, 5, 9)
"""Rows of a sequence in a step that is timed."""

Way = tuple[str, int, str]
"""Engine, streams, and how tokens are chosen."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens of one measurement, prompts' time included.

    Attributes:
        by_clock: Per second.
        by_cpu: Per second of CPU that the process used, in all its threads.
    """

    by_clock: float
    by_cpu: float


def main() -> None:
    forms = possible_forms()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exact", nargs="+", default=["fp32", "fp32-openvino"])
    parser.add_argument("--drafts", nargs="+", default=["q4_0-llama.cpp", "q4_1-llama.cpp"])
    parser.add_argument("--tokens", type=int, default=None, help="fixed; auto if not given")
    parser.add_argument("--how", nargs="+", default=list(HOWS), choices=list(HOWS))
    parser.add_argument("--streams", nargs="+", type=int, default=list(STREAMS))
    parser.add_argument("--new", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    print(conditions(arguments.threads), flush=True)
    generators = {
        name: prepare_generator(name, forms[name], arguments.threads)
        for name in (*arguments.exact, *arguments.drafts)
    }
    task = next(iter(generators.values())).open_task(MAX_TOKENS)
    num_prompts = (arguments.rounds + 1) * sum(STREAMS) + max(STREAMS)
    prompts = list(islice(review_prompts(task), num_prompts))
    engines = {
        name: open_engine(generators[exact], drafter, arguments)
        for exact in arguments.exact
        for name, drafter in [
            (exact, None),
            *((f"{exact} + {draft}", generators[draft]) for draft in arguments.drafts),
        ]
    }
    try:
        asyncio.run(measure(engines, prompts, arguments))
    finally:
        for engine in engines.values():
            engine.close()
    report_steps(generators, arguments, {n: e.drafted for n, e in engines.items()}, prompts)


def open_engine(
    exact: DemoGenerator, draft: DemoGenerator | None, arguments: argparse.Namespace
) -> SlotGenerator:
    return SlotGenerator(
        lambda: opened(exact),
        UnsharedCores(arguments.threads),
        max_waiting=1,
        make_drafter=None if draft is None else lambda: Drafter(opened(draft), arguments.tokens),
    )


def opened(generator: DemoGenerator) -> Decoder:
    decoder = generator.open_decoder()
    assert decoder is not None
    return decoder


async def measure(
    engines: dict[str, SlotGenerator],
    prompts: Sequence[BenchmarkPrompt],
    arguments: argparse.Namespace,
) -> None:
    """Measure everything once per round; a first round warms, learns lengths and is left out."""
    speeds: defaultdict[Way, list[Speed]] = defaultdict(list)
    accepted: defaultdict[Way, DraftCounts] = defaultdict(lambda: DraftCounts(0, 0, 0))
    texts: defaultdict[str, list[list[int]]] = defaultdict(list)
    for round_ in range(arguments.rounds + 1):
        fresh = iter(prompts[round_ * sum(STREAMS) :])
        for streams in arguments.streams:
            some = list(islice(fresh, streams))
            for how in arguments.how:
                for name, engine in engines.items():
                    before = engine.drafted
                    speed, answers = await run(engine, some, HOWS[how], arguments.new)
                    if how == "greedy":
                        texts[name] += answers
                    said = f"{speed.by_clock:.1f} tokens/s, {speed.by_cpu:.1f} a second of CPU"
                    print(f"round {round_}: {streams} {how} {name}: {said}", flush=True)
                    if round_ > 0:
                        way = name, streams, how
                        speeds[way].append(speed)
                        accepted[way] += difference(engine.drafted, before)
    print(f"\nprompts of {PROMPT_TOKENS} tokens, {arguments.new} new, prompts included")
    print("tokens a second (over the exact variant's), tokens a second of CPU (likewise)")
    for streams in arguments.streams:
        for how in arguments.how:
            for name in engines:
                report(speeds, accepted, (name, streams, how))
    for name, found in texts.items():
        expected = texts[name.split(" + ")[0]]
        same = sum(a == b for a, b in zip(found, expected, strict=True))
        print(f"{name}: {same} of {len(found)} greedy texts are those of the exact variant alone")


async def run(
    engine: SlotGenerator, prompts: Sequence[BenchmarkPrompt], sampling: Sampling, num_new: int
) -> tuple[Speed, list[list[int]]]:
    """Continue prompts at once; how fast, and the new tokens of each."""

    async def one(prompt: BenchmarkPrompt, seed: int) -> list[int]:
        asked = TokenRequest(prompt.token_ids, num_new, frozenset(), replace(sampling, seed=seed))
        return [event.token async for event in engine.generate(asked)]

    # What a slot holds of the same prompt from another measurement would be reused.
    await one(BenchmarkPrompt("", (1,) * 20), 0)
    started, used = time.perf_counter(), time.process_time()
    answers = await asyncio.gather(*(one(prompt, i) for i, prompt in enumerate(prompts)))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - used
    tokens = len(prompts) * num_new
    return Speed(tokens / seconds, tokens / cpu_seconds), answers


def difference(after: DraftCounts, before: DraftCounts) -> DraftCounts:
    return DraftCounts(
        after.accepted - before.accepted,
        after.rejected - before.rejected,
        after.unread - before.unread,
    )


def report(speeds: dict[Way, list[Speed]], accepted: dict[Way, DraftCounts], way: Way) -> None:
    name, streams, how = way
    pairs = list(zip(speeds[way], speeds[name.split(" + ")[0], streams, how], strict=True))
    by_clock = statistics.median(one.by_clock / alone.by_clock for one, alone in pairs)
    by_cpu = statistics.median(one.by_cpu / alone.by_cpu for one, alone in pairs)
    tokens_s = statistics.median(one.by_clock for one, _ in pairs)
    tokens_cpu_s = statistics.median(one.by_cpu for one, _ in pairs)
    line = f"{streams} {how:8} {name:32} {tokens_s:6.1f} ({by_clock:.2f} x)"
    line += f" {tokens_cpu_s:6.1f} ({by_cpu:.2f} x)"
    counts = accepted[way]
    if counts.acceptance is not None:
        drafted = counts.accepted + counts.rejected + counts.unread
        line += f"   accepted {counts.acceptance:.3f} of those read; {drafted} were drafted"
    print(line, flush=True)


def report_steps(
    generators: dict[str, DemoGenerator],
    arguments: argparse.Namespace,
    drafted: dict[str, DraftCounts],
    prompts: Sequence[BenchmarkPrompt],
) -> None:
    """Time single steps, in turns, and say what the formula makes of them."""
    decoders = {name: opened(generator) for name, generator in generators.items()}
    for streams in arguments.streams:
        seconds = step_times(decoders, streams, prompts)
        print(f"\nms of a step of {streams} sequences with so many rows each; median of 9")
        for name, times in seconds.items():
            print(f"{name:16}", {rows: round(1e3 * time_, 1) for rows, time_ in times.items()})
        for exact in arguments.exact:
            for draft in arguments.drafts:
                counts = drafted[f"{exact} + {draft}"]
                if counts.acceptance is not None:
                    best = best_ratio(seconds[exact], seconds[draft][1], counts.acceptance)
                    print(f"{exact} + {draft}: at best {best[0]:.2f} x, {best[1]} tokens at once")


def step_times(
    decoders: dict[str, Decoder], streams: int, prompts: Sequence[BenchmarkPrompt]
) -> dict[str, dict[int, float]]:
    measured: dict[str, defaultdict[int, list[float]]] = {}
    for name, decoder in decoders.items():
        measured[name] = defaultdict(list)
        for slot in range(streams):
            decoder.step([Segment(slot, 0, prompts[slot].token_ids)])
    for _ in range(9):
        for name, decoder in decoders.items():
            for rows in ROWS:
                segments = [
                    Segment(slot, PROMPT_TOKENS, prompts[slot].token_ids[:rows], rows)
                    for slot in range(streams)
                ]
                started = time.perf_counter()
                decoder.step(segments)
                measured[name][rows].append(time.perf_counter() - started)
    return {
        name: {rows: statistics.median(times) for rows, times in found.items()}
        for name, found in measured.items()
    }


def best_ratio(check_s: dict[int, float], draft_s: float, acceptance: float) -> tuple[float, int]:
    """Speed over that of steps without a draft, by the best number of tokens at once."""
    return max(
        (
            expected_tokens(acceptance, length)
            * check_s[1]
            / (length * draft_s + interpolated(check_s, length + 1)),
            length,
        )
        for length in range(MOST_TOKENS + 1)
    )


if __name__ == "__main__":
    main()
