"""How a prompt of 1,000 tokens stretches the pauses between the tokens of running streams."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence

import numpy as np

from benchmarks.generation_ways import NEW_TOKENS, BenchmarkPrompt, stream
from serving.seams import GenerationTask

LONG_PROMPT_TOKENS = 1_000
ROUNDS = 4


def long_prompt_of(prompts: Sequence[BenchmarkPrompt], number: int, task: GenerationTask) -> str:
    """A text of about 1,000 tokens; another number's shares no beginning with it."""
    turned = [*prompts[number:], *prompts[:number]]
    text = " ".join(prompt.text for prompt in turned)
    # A word is a token or more, and the task refuses texts that are far too long.
    words = text.split()[:LONG_PROMPT_TOKENS]
    while len(task.encode_prompt(" ".join(words))) > LONG_PROMPT_TOKENS:
        words.pop()
    return " ".join(words)


async def report_long_prompt(
    place: str, name: str, prompts: Sequence[BenchmarkPrompt], streams: int, task: GenerationTask
) -> None:
    """Print it of one variant.

    Args:
        place: URL of its route for completions.
        name: The variant.
        prompts: Enough of them for a long one.
        streams: How many run; one more must have room.
        task: Makes tokens of texts.
    """
    running = prompts[:streams]

    async def gaps(long_prompt: str | None) -> tuple[float, float]:
        streams = [asyncio.create_task(stream(place, p.text, 2 * NEW_TOKENS)) for p in running]
        first = 0.0
        if long_prompt is not None:
            await asyncio.sleep(1.0)
            first_token = await stream(place, long_prompt, 1)
            first = first_token.moments[0] - first_token.started
        answers = await asyncio.gather(*streams)
        pauses = np.concatenate([np.diff(answer.moments) for answer in answers])
        return float(np.quantile(pauses, 0.99)), first

    quiet, loaded, firsts = [], [], []
    for number in range(ROUNDS):
        quiet.append((await gaps(None))[0])
        stretched, first = await gaps(long_prompt_of(prompts, number, task))
        loaded.append(stretched)
        firsts.append(first)
    ratio = statistics.median(a / b for a, b in zip(loaded, quiet, strict=True))
    print(
        f"{name}: {len(running)} streams, p99 pause between tokens "
        f"{statistics.median(quiet) * 1e3:.1f} ms; with a prompt of {LONG_PROMPT_TOKENS} tokens "
        f"arriving {statistics.median(loaded) * 1e3:.1f} ms: {ratio:.2f} times; that prompt's "
        f"first token after {statistics.median(firsts):.2f} s"
    )
