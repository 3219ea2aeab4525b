"""Perplexity of SmolLM2 on review text in every variant, beside transformers' own float32 pass.

Run as ``python -m benchmarks.perplexity`` after ``python -m serving.demo.prepare``. The engine of
each variant, opened from its artifact, scores the text as one prompt, piece by piece; each token
but the first is predicted from all before. Every recipe on every runtime that generates here is
measured, and ``int4`` on openvino by each of its methods. ``serving/quality/token_scores.py`` says
where the interval of a ratio comes from.
"""

from __future__ import annotations

import os

from serving.app.ray_environment import KERNEL_THREADS

# As the service sets it, and before torch loads OpenMP.
os.environ.update(KERNEL_THREADS)

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.conditions import conditions
from benchmarks.demo_generators import (
    MAX_TOKENS,
    METHODS,
    SOURCE,
    DemoGenerator,
    possible_forms,
    prepare_generator,
)
from benchmarks.demo_variants import REVIEWS
from serving.checkpoint import find_checkpoint
from serving.quality.token_scores import perplexity_of, perplexity_ratio, same_top_token
from serving.seams import GREEDY, GeneratorEngine, TokenLogprob, TokenRequest, VariantForm

NUM_SENTENCES = 200
SCORED = replace(GREEDY, logprobs=1)


def main() -> None:
    forms: dict[str, tuple[VariantForm, dict[str, str]]] = {
        **{name: (form, {}) for name, form in possible_forms().items()},
        **int4_methods(),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--variants", nargs="+", default=list(forms), choices=list(forms))
    parser.add_argument("--tokens", type=int, default=MAX_TOKENS, help="length of the text")
    arguments = parser.parse_args()
    print(conditions(arguments.threads))
    tokens: tuple[int, ...] = ()
    expected: Sequence[TokenLogprob] = ()
    for name in arguments.variants:
        form, options = forms[name]
        generator = prepare_generator(name, form, arguments.threads, **options)
        if not expected:
            tokens = read_tokens(generator, arguments.tokens)
            expected = scores_of_transformers(tokens)
            print(f"\nperplexity over {len(tokens) - 1} predictions of review text; transformers,")
            print(f"float32: {perplexity_of([expected]).value:.3f}\n")
            print("| variant | perplexity | of float32 | same top token | MiB | prepared in, s |")
            print("|---|---|---|---|---|---|", flush=True)
        report(name, generator, asyncio.run(scores_of(generator.open_engine(), tokens)), expected)


def int4_methods() -> dict[str, tuple[VariantForm, dict[str, str]]]:
    """``int4`` on openvino by each method, if that is possible here."""
    form = VariantForm("int4", "openvino")
    if form not in possible_forms().values():
        return {}
    return {f"int4-{method}-openvino": (form, {"method": method}) for method in METHODS}


def report(
    name: str,
    generator: DemoGenerator,
    scores: Sequence[TokenLogprob],
    expected: Sequence[TokenLogprob],
) -> None:
    """Print a row."""
    manifest = generator.artifact.manifest
    ratio = perplexity_ratio([scores], [expected])
    print(
        f"| `{name}` | {perplexity_of([scores]).value:.2f} "
        f"| {ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f}) "
        f"| {same_top_token([scores], [expected]).value:.4f} "
        f"| {manifest.weights_bytes / 2**20:.1f} | {manifest.seconds:.0f} |",
        flush=True,
    )


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


if __name__ == "__main__":
    main()
