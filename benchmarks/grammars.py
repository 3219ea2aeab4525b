"""What answers of a form cost: ``python -m benchmarks.grammars [VARIANT …]``.

First the grammar alone, over SmolLM2's 49,152 tokens: reading them, compiling each schema, and the
mask and the advance of a token. Then the same prompts through each variant's engine in this
process, greedy, free and held to an object, in turns, at 1 and at 8 streams. A held answer has
other tokens than a free one, so times are per token.
"""

from __future__ import annotations

import os

from serving.app.ray_environment import KERNEL_THREADS

# As the service sets it, and before torch loads OpenMP.
os.environ.update(KERNEL_THREADS)

import asyncio
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.conditions import conditions
from benchmarks.demo_generators import prepare_generator
from serving.generator.grammar import CompiledGrammar, Grammars
from serving.generator.json_schema import schema_rule
from serving.machine.cores import available_cores
from serving.seams import GREEDY, GenerationTask, GeneratorEngine, TokenRequest, VariantForm

SCHEMAS: dict[str, Any] = {
    "any object": {"type": "object"},
    "a person": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": False,
    },
    "5,000 values": {"enum": [f"value{number}" for number in range(5_000)]},
    "1,000 properties": {
        "type": "object",
        "properties": {f"p{number}": {"type": "string"} for number in range(1_000)},
        "additionalProperties": False,
    },
    "a costly pattern": {"type": "string", "pattern": "^.*a.{12}b$"},
}
PROMPT = "Describe a person as JSON with the keys name, age and tags."
HELD = "any object"
NEW_TOKENS, ROUNDS, STREAMS = 64, 5, (1, 8)


def main() -> None:
    threads = available_cores()
    print(conditions(threads), "\n")
    names = sys.argv[1:] or ["fp32", "int8-dynamic", "int4"]
    grammars: Grammars | None = None
    for name in names:
        generator = prepare_generator(name, VariantForm(name, "torch"), threads)
        task = generator.open_task(2_048)
        if grammars is None:
            grammars = measure_grammars(task)
        engine = generator.open_engine()
        asyncio.run(measure_engine(name, engine, task, _compile(grammars, HELD)))
        engine.close()


def measure_grammars(task: GenerationTask) -> Grammars:
    """Print what grammars cost without a model."""
    grammars = Grammars(task.token_table)
    started = time.perf_counter()
    grammars.compile('start: "a"', "response_format")
    print(f"tokens read and ordered, once: {time.perf_counter() - started:.2f} s\n")
    print("| schema | compile, ms | first token, µs | others: median, p99, µs |\n|---|---|---|---|")
    for name in SCHEMAS:
        compiling = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            grammar = _compile(grammars, name)
            compiling.append(time.perf_counter() - started)
        first, *others = _walk(grammar, task)
        print(
            f"| {name} | {statistics.median(compiling) * 1e3:.1f} | {first * 1e6:.0f} | "
            f"{np.median(others) * 1e6:.0f}, {np.quantile(others, 0.99) * 1e6:.0f} |"
        )
    print()
    return grammars


async def measure_engine(
    name: str, engine: GeneratorEngine, task: GenerationTask, grammar: CompiledGrammar
) -> None:
    """Print the time per token, free and held, at each number of streams."""
    free = TokenRequest(task.encode_prompt(PROMPT), NEW_TOKENS, frozenset(), GREEDY)
    sampling = replace(GREEDY, grammar=grammar)
    held = replace(free, stop_tokens=task.stop_tokens, sampling=sampling)
    await _per_token(engine, free, 1)
    for streams in STREAMS:
        found: dict[str, list[float]] = {"free": [], "held": []}
        for _ in range(ROUNDS):
            found["free"].append(await _per_token(engine, free, streams))
            found["held"].append(await _per_token(engine, held, streams))
        a, b = (statistics.median(found[kind]) * 1e3 for kind in ("free", "held"))
        print(f"{name}, {streams} streams: free {a:.2f} ms a step, held {b:.2f} ({b / a:.3f} ×)")


def _compile(grammars: Grammars, name: str) -> CompiledGrammar:
    lark = f"start: answer\nanswer: {schema_rule(SCHEMAS[name])}"
    return grammars.compile(lark, "response_format")


def _walk(grammar: CompiledGrammar, task: GenerationTask) -> list[float]:
    """Seconds of each of up to 1,000 tokens that are chosen at random."""
    random, num_tokens = np.random.default_rng(0), len(task.token_table().raw)
    times: list[float] = []
    state = grammar.begin()
    while len(times) < 1_000:
        started = time.perf_counter()
        allowed = state.allowed(num_tokens)
        spent = time.perf_counter() - started
        token = int(random.choice(np.flatnonzero(allowed)))
        started = time.perf_counter()
        state.advance(token)
        times.append(spent + time.perf_counter() - started)
        if token in task.stop_tokens:
            state = grammar.begin()
    return times


async def _per_token(engine: GeneratorEngine, request: TokenRequest, streams: int) -> float:
    """Mean seconds between the tokens of streams that run together."""

    async def one() -> tuple[float, int]:
        arrivals = [time.perf_counter() async for _ in engine.generate(request)]
        return arrivals[-1] - arrivals[0], len(arrivals) - 1

    ran = await asyncio.gather(*(one() for _ in range(streams)))
    return sum(seconds for seconds, _ in ran) / sum(count for _, count in ran)


if __name__ == "__main__":
    main()
