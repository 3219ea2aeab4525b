"""Perplexity of SmolLM2 on review text in every variant, beside transformers' own float32 pass.

Run as ``python -m benchmarks.perplexity`` after ``python -m serving.demo.prepare``. The text is
read in pieces, as the engine reads a prompt; each token but the first is predicted from all before.
"""

from __future__ import annotations

import argparse
import math
import os

import numpy as np
from numpy.typing import NDArray

from benchmarks.conditions import conditions

# First of all: it sets what OpenMP reads when torch loads it.
from benchmarks.generation import REVIEWS, SOURCE, load_decoder
from serving.checkpoint import find_checkpoint
from serving.runtimes import VARIANTS, get_variant
from serving.seams import Decoder, Segment
from serving.tasks import load_generation_task

NUM_TOKENS = 2_048
NUM_SENTENCES = 200
PIECE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    arguments = parser.parse_args()
    print(conditions(arguments.threads))
    tokens = read_tokens()
    print(f"\nperplexity over {len(tokens) - 1} predictions of review text, in pieces of {PIECE}")
    print(f"{'':>22} {'perplexity':>11} {'of reference':>13}  same top token")
    expected = logits_of_transformers(tokens)
    reference = perplexity(expected, tokens)
    print(f"{'transformers, float32':>22} {reference:11.3f}")
    for variant in arguments.variants:
        logits = logits_of(load_decoder(variant, arguments.threads), tokens)
        found = perplexity(logits, tokens)
        same = (logits.argmax(1) == expected.argmax(1)).mean()
        print(f"{variant:>22} {found:11.3f} {found / reference:13.4f}  {same:.4f}")
        options = get_variant(variant).options().model_dump()
        if options:
            print(f"{'':>22} {', '.join(f'{name} {value}' for name, value in options.items())}")


def read_tokens() -> tuple[int, ...]:
    """The first 2,048 tokens of the reviews, one sentence a line."""
    lines = REVIEWS.read_text(encoding="utf-8").splitlines()[:NUM_SENTENCES]
    task = load_generation_task("generation", find_checkpoint("smollm2", SOURCE), 8_192)
    return task.encode_prompt("\n".join(line.split("\t")[2] for line in lines))[:NUM_TOKENS]


def logits_of_transformers(tokens: tuple[int, ...]) -> NDArray[np.float32]:
    """float32 (tokens, vocabulary), by the model's own forward pass over all tokens at once."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = find_checkpoint("smollm2", SOURCE).folder
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits: NDArray[np.float32] = model(torch.tensor([tokens])).logits[0].numpy()
    return logits


def logits_of(decoder: Decoder, tokens: tuple[int, ...]) -> NDArray[np.float32]:
    """float32 (tokens, vocabulary)."""
    pieces = [(start, tokens[start : start + PIECE]) for start in range(0, len(tokens), PIECE)]
    return np.concatenate(
        [decoder.step([Segment(0, start, piece, len(piece))]) for start, piece in pieces]
    )


def perplexity(logits: NDArray[np.float32], tokens: tuple[int, ...]) -> float:
    """``exp`` of the mean negative log-probability of the tokens from the second on."""
    losses = []
    for row, token in zip(logits, tokens[1:], strict=False):
        scores = row.astype(np.float64)
        losses.append(float(np.logaddexp.reduce(scores) - scores[token]))
    return math.exp(sum(losses) / len(losses))


if __name__ == "__main__":
    main()
