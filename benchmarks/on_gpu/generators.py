"""A generator in every recipe: opened from its artifact, timed, compared with fp32's own text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.on_gpu.encoders import THREADS, free_memory
from serving.checkpoint import read_config
from serving.recipes import RECIPES
from serving.runtimes.torch.cuda.opening import open_paged_generator
from serving.runtimes.torch.cuda.preparing import prepare_paged_generator
from serving.seams import (
    GREEDY,
    Checkpoint,
    DeviceName,
    GeneratorEngine,
    OpenGeneratorRequest,
    PrepareRequest,
    TokenLogprob,
    TokenRequest,
)

STREAMS = {"cuda": (1, 8, 64), "cpu": (1, 3)}
PROMPT_TOKENS = {"cuda": 64, "cpu": 8}
NEW_TOKENS = {"cuda": 128, "cpu": 4}
SCORED = replace(GREEDY, logprobs=1)


class AnyCores:
    """What a generator on a GPU does not ask."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"{name} of the CPU's cores")


def measure_generators(
    checkpoint: Checkpoint, recipes: Iterable[str], device: DeviceName, folder: Path
) -> None:
    """Print a row for each recipe, ``fp32`` first: the others score the text that it wrote."""
    folder.mkdir()
    prepare_paged_generator(prepare_request(checkpoint, folder))
    prompts = random_prompts(checkpoint, device)
    columns = " | ".join(f"{streams} streams" for streams in STREAMS[device])
    print("tokens/s of all streams together, prompts included; the first pass of each warms\n")
    print(f"| recipe | load, s | MiB | same top token | nats to fp32 | {columns} |")
    print("|---|---|---|---|---|" + "---|" * len(STREAMS[device]))
    text: tuple[int, ...] | None = None
    reference: Sequence[TokenLogprob] = ()
    for recipe in recipes:
        started = time.perf_counter()
        engine = open_paged_generator(open_request(recipe, folder, device))
        # An engine belongs to one event loop.
        with asyncio.Runner() as runner:
            runner.run(continue_all(engine, prompts[:1], 1))
            load_s = time.perf_counter() - started
            if text is None:
                [written] = runner.run(continue_all(engine, prompts[:1], NEW_TOKENS[device]))
                text = (*prompts[0], *written)
            scores = runner.run(score(engine, text, PROMPT_TOKENS[device]))
            reference = reference or scores
            speeds = [
                runner.run(tokens_per_s(engine, prompts[:streams], NEW_TOKENS[device]))
                for streams in STREAMS[device]
            ]
            mebibytes = engine.footprint().weights_bytes / 2**20
            engine.close()
        pairs = list(zip(scores, reference, strict=True))
        same = np.mean([a.top[0][0] == b.top[0][0] for a, b in pairs])
        nats = np.mean([abs(a.logprob - b.logprob) for a, b in pairs])
        print(
            f"| `{recipe}` | {load_s:.2f} | {mebibytes:.1f} | {same:.4f} | {nats:.4f} | "
            + " | ".join(f"{speed:.0f}" for speed in speeds)
            + " |",
            flush=True,
        )
        del engine
        free_memory(device)


def random_prompts(checkpoint: Checkpoint, device: DeviceName) -> list[tuple[int, ...]]:
    """As many as there are streams, all of one length and with other beginnings."""
    vocabulary = int(read_config(checkpoint)["vocab_size"])
    shape = (max(STREAMS[device]), PROMPT_TOKENS[device])
    ids = np.random.default_rng(0).integers(3, vocabulary, shape)
    return [tuple(row) for row in ids.tolist()]


def prepare_request(checkpoint: Checkpoint, folder: Path) -> PrepareRequest:
    """Every recipe is applied when it is opened: one artifact serves all."""
    return PrepareRequest(
        checkpoint=checkpoint,
        recipe="fp32",
        options=RECIPES["fp32"].options(),
        kind="generator",
        head=None,
        device="cuda",
        threads=THREADS,
        example={},
        calibration=(),
        folder=folder,
    )


def open_request(recipe: str, folder: Path, device: DeviceName) -> OpenGeneratorRequest:
    return OpenGeneratorRequest(
        folder=folder,
        recipe=recipe,
        options=RECIPES[recipe].options(),
        device=device,
        threads=THREADS,
        cores=AnyCores(),  # type: ignore[arg-type]  # whatever is asked of it fails
        max_running=max(STREAMS[device]),
        max_waiting=1,
        max_tokens=PROMPT_TOKENS[device] + NEW_TOKENS[device],
    )


async def tokens_per_s(
    engine: GeneratorEngine, prompts: Sequence[tuple[int, ...]], num_new: int
) -> float:
    """Likewise summed over the streams."""
    await continue_all(engine, prompts, min(num_new, 8))
    started = time.perf_counter()
    answers = await continue_all(engine, prompts, num_new)
    return sum(map(len, answers)) / (time.perf_counter() - started)


async def continue_all(
    engine: GeneratorEngine, prompts: Sequence[tuple[int, ...]], num_new: int
) -> list[list[int]]:
    """Continue all at once, greedily."""

    async def one(prompt: tuple[int, ...]) -> list[int]:
        request = TokenRequest(prompt, num_new, frozenset(), GREEDY)
        async with aclosing(engine.generate(request)) as answer:
            return [event.token async for event in answer]

    return list(await asyncio.gather(*map(one, prompts)))


async def score(
    engine: GeneratorEngine, text: tuple[int, ...], num_given: int
) -> Sequence[TokenLogprob]:
    """How probable the tokens behind the first ``num_given`` are."""
    request = TokenRequest(text, 0, frozenset(), SCORED, logprobs_from=num_given)
    async with aclosing(engine.generate(request)) as answer:
        return (await anext(answer)).prompt
