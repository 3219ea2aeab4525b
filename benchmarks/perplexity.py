"""Perplexity of SmolLM2 on review text in every variant, beside transformers' own float32 pass.

Run as ``python -m benchmarks.perplexity`` after ``python -m serving.demo.prepare``. The engine of
each variant, opened from its artifact, scores the text as one prompt, piece by piece; each token
but the first is predicted from all before.
"""

from __future__ import annotations

import os

from serving.app.ray_environment import KERNEL_THREADS

# As the service sets it, and before torch loads OpenMP.
os.environ.update(KERNEL_THREADS)

import argparse
import asyncio
import math
import statistics
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.conditions import conditions
from benchmarks.demo_generators import (
    MAX_TOKENS,
    SOURCE,
    DemoGenerator,
    possible_forms,
    prepare_generator,
)
from benchmarks.demo_variants import REVIEWS
from serving.checkpoint import find_checkpoint
from serving.seams import GREEDY, GeneratorEngine, TokenLogprob, TokenRequest

NUM_SENTENCES = 200
SCORED = replace(GREEDY, logprobs=1)


def main() -> None:
    forms = possible_forms()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--variants", nargs="+", default=list(forms), choices=list(forms))
    parser.add_argument("--tokens", type=int, default=MAX_TOKENS, help="length of the text")
    arguments = parser.parse_args()
    print(conditions(arguments.threads))
    generators = [
        prepare_generator(name, forms[name], arguments.threads) for name in arguments.variants
    ]
    tokens = read_tokens(generators[0], arguments.tokens)
    print(f"\nperplexity over {len(tokens) - 1} predictions of review text")
    print(f"{'':>22} {'perplexity':>11} {'of reference':>13}  same top token")
    expected = scores_of_transformers(tokens)
    reference = perplexity(expected)
    print(f"{'transformers, float32':>22} {reference:11.3f}")
    for generator in generators:
        scores = asyncio.run(scores_of(generator.open_engine(), tokens))
        found = perplexity(scores)
        same = np.mean([a.top[0][0] == b.top[0][0] for a, b in zip(scores, expected, strict=True)])
        name, options = generator.variant.name, generator.artifact.manifest.key.options
        print(f"{name:>22} {found:11.3f} {found / reference:13.4f}  {same:.4f}")
        if options:
            print(f"{'':>22} {', '.join(f'{name} {value}' for name, value in options.items())}")


def read_tokens(generator: DemoGenerator, count: int) -> tuple[int, ...]:
    """The first tokens of the reviews, one sentence a line."""
    lines = REVIEWS.read_text(encoding="utf-8").splitlines()[:NUM_SENTENCES]
    text = "\n".join(line.split("\t")[2] for line in lines)
    # The limit that refuses long prompts shall be the model's own.
    return generator.open_task(8_192).encode_prompt(text)[:count]


def scores_of_transformers(tokens: tuple[int, ...]) -> list[TokenLogprob]:
    """Scores of the tokens from the second on, by the model's own pass over all of them at once."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = find_checkpoint("smollm2", SOURCE).folder
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits: NDArray[np.float32] = model(torch.tensor([tokens])).logits[0].numpy()
    return [_score(row, token) for row, token in zip(logits, tokens[1:], strict=False)]


def _score(row: NDArray[np.float32], token: int) -> TokenLogprob:
    logs = row.astype(np.float64) - np.logaddexp.reduce(row.astype(np.float64))
    best = int(row.argmax())
    return TokenLogprob(token, float(logs[token]), ((best, float(logs[best])),))


async def scores_of(engine: GeneratorEngine, tokens: tuple[int, ...]) -> Sequence[TokenLogprob]:
    """Likewise, by an engine, which is closed after that."""
    assert engine.can_score, "this engine cannot say how probable given tokens are"
    request = TokenRequest(tokens, 0, frozenset(), SCORED, logprobs_from=1)
    try:
        async with aclosing(engine.generate(request)) as answer:
            first = await anext(answer)
    finally:
        engine.close()
    return first.prompt


def perplexity(scores: Sequence[TokenLogprob]) -> float:
    """``exp`` of the mean negative log-probability."""
    return math.exp(-statistics.fmean(score.logprob for score in scores))


if __name__ == "__main__":
    main()
