"""How often two variants choose the same token, by the way in which tokens are drawn.

Run as ``python -m benchmarks.draft_couplings``. An exact variant writes eight texts, greedy and
sampled in turns; it and each draft then give their logits after every token. Out of each pair of
distributions follows, without any drawing, the probability that a proposed token is accepted: by
rejection sampling (Leviathan and others 2023), if both run the same race
(``serving/generator/sampling.py``), and if both draw from their cumulative distribution with the
same number. Beside it, the draft's agreement as the quality process measures it: on its own texts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from benchmarks.demo_generators import MAX_TOKENS, possible_forms, prepare_generator
from benchmarks.drafting import opened
from benchmarks.generation import review_prompts
from serving.generator.sampling import race
from serving.seams import Decoder, Sampling, Segment

NEW_TOKENS, NUM_TEXTS = 48, 8
TEMPERATURES = (1.0, 0.7)
NUM_LIKELY = 200
"""Tokens whose races are computed; what the others have in common is left out."""

Rows = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exact", default="fp32-openvino")
    parser.add_argument("--drafts", nargs="+", default=["q4_1-llama.cpp", "q4_0-llama.cpp"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    forms = possible_forms()
    exact = prepare_generator(arguments.exact, forms[arguments.exact], arguments.threads)
    decoder = opened(exact)
    reviews = islice(review_prompts(exact.open_task(MAX_TOKENS)), NUM_TEXTS)
    prompts = [prompt.token_ids for prompt in reviews]
    texts = [
        written(decoder, prompt, None if number % 2 else number)
        for number, prompt in enumerate(prompts)
    ]
    wanted = logits_of(decoder, texts)
    for name in arguments.drafts:
        draft = opened(prepare_generator(name, forms[name], arguments.threads))
        report(name, wanted, logits_of(draft, texts))
        own = [written(draft, prompt, None) for prompt in prompts]
        agreement = same_first(logits_of(decoder, own), logits_of(draft, own))
        print(f"  agreement on what it writes itself, greedy: {agreement:.3f}", flush=True)


def written(decoder: Decoder, prompt: Sequence[int], seed: int | None) -> list[int]:
    """A prompt and its continuation, greedy without a seed."""
    tokens = list(prompt)
    [row] = decoder.step([Segment(0, 0, tokens)])
    for place in range(NEW_TOKENS):
        if seed is None:
            tokens.append(int(row.argmax()))
        else:
            tokens.append(race(row, Sampling(1, 1, 0, seed, 0, 0, None), place))
        [row] = decoder.step([Segment(0, len(tokens) - 1, tokens[-1:])])
    return tokens


def logits_of(decoder: Decoder, texts: Sequence[Sequence[int]]) -> Rows:
    """Of all places where something was written, (places, vocabulary)."""
    rows = [decoder.step([Segment(0, 0, text, NEW_TOKENS + 1)]) for text in texts]
    return np.concatenate(rows).astype(np.float64)


def report(name: str, wanted: Rows, drafted: Rows) -> None:
    greedy = same_first(wanted, drafted)
    print(f"{name}, {len(wanted)} places: greedy {greedy:.3f}", flush=True)
    for temperature in TEMPERATURES:
        p, q = softmax(wanted / temperature), softmax(drafted / temperature)
        rejection = np.minimum(p, q).sum(1).mean()
        races = np.mean([same_race(*pair) for pair in zip(p, q, strict=True)])
        numbers = same_number(p, q).mean()
        print(
            f"  temperature {temperature:g}: rejection {rejection:.3f}, race {races:.3f}, "
            f"one number {numbers:.3f}",
            flush=True,
        )


def same_first(rows: Rows, others: Rows) -> float:
    """Share of places with the same most probable token: the quality process's agreement."""
    return float((rows.argmax(1) == others.argmax(1)).mean())


def softmax(rows: Rows) -> Rows:
    weights = np.exp(rows - rows.max(1, keepdims=True))
    shares: Rows = weights / weights.sum(1, keepdims=True)
    return shares


def same_race(p: Rows, q: Rows) -> float:
    """Probability that one token is first in both races: the sum of 1 / Σ max(p_j/p_i, q_j/q_i)."""
    likely = np.argsort(-np.minimum(p, q))[:NUM_LIKELY]
    with np.errstate(divide="ignore"):
        ratios = [np.maximum(p / p[i], q / q[i]).sum() for i in likely]
    return float((1 / np.array(ratios)).sum())


def same_number(p: Rows, q: Rows) -> Rows:
    """Length that each token's parts of the two cumulative distributions have in common."""
    ends, other_ends = np.cumsum(p, 1), np.cumsum(q, 1)
    begin = np.maximum(ends - p, other_ends - q)
    common: Rows = np.clip(np.minimum(ends, other_ends) - begin, 0, None).sum(1)
    return common


if __name__ == "__main__":
    main()
