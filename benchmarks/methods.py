"""Ways to make 4, 8 and 16 bits, of MiniLM, the demo's classifier and SmolLM2.

Run as ``python -m benchmarks.methods`` after ``python -m serving.demo.prepare``. Each row is a way
to make the weights: how close MiniLM comes to ``fp32`` on torch, the classifier's accuracy on
held-out sentences, SmolLM2's perplexity on review text, and the seconds that preparing took.
Methods that measure inputs calibrate on other sentences of the same reviews, so this is what data
of the right kind are worth.
"""

from __future__ import annotations

import os

from serving.app.ray_environment import KERNEL_THREADS

# As the service sets it for its replicas, and before torch loads OpenMP.
os.environ.update(KERNEL_THREADS)

import argparse
import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.conditions import conditions
from benchmarks.demo_generators import prepare_generator
from benchmarks.demo_variants import NUM_SENTENCES, answer, open_variant, sample_sentences
from benchmarks.encoders import CLASSIFIER, LABELLED
from benchmarks.perplexity import read_tokens, scores_of
from serving.quality.dataset import read_examples
from serving.quality.token_scores import perplexity_of, perplexity_ratio, same_top_token
from serving.seams import VariantForm

Way = tuple[str, str, Mapping[str, Any]]
"""Recipe, runtime and options."""

WAYS: Mapping[str, Way] = {
    "int4 torch": ("int4", "torch", {}),
    "int4 torch rtn": ("int4", "torch", {"method": "rtn"}),
    "int4 torch rtn symmetric": ("int4", "torch", {"method": "rtn", "symmetric": True}),
    "int4 torch hqq": ("int4", "torch", {"method": "hqq"}),
    "int4 torch awq": ("int4", "torch", {"method": "awq"}),
    "int4 torch gptq": ("int4", "torch", {"method": "gptq"}),
    "int4 openvino rtn": ("int4", "openvino", {"method": "rtn"}),
    "int4 openvino scale-estimation": ("int4", "openvino", {"method": "scale-estimation"}),
    "int4 openvino awq": ("int4", "openvino", {"method": "awq"}),
    "int4 openvino gptq": ("int4", "openvino", {"method": "gptq"}),
    "nf4": ("nf4", "torch", {}),
    "f16": ("f16", "torch", {}),
    "fp8": ("fp8", "torch", {}),
    "int8-dynamic": ("int8-dynamic", "torch", {}),
    "int8-dynamic smooth 0.5": ("int8-dynamic", "torch", {"smooth": 0.5}),
    "int8-outlier": ("int8-outlier", "torch", {}),
    "int8-outlier share 0.05": ("int8-outlier", "torch", {"share": 0.05}),
    "int8-static": ("int8-static", "torch", {}),
    "int8-static smooth 0.5": ("int8-static", "torch", {"smooth": 0.5}),
}
"""By what a row is called."""

Report = Callable[[list[str], int, int], None]


def main() -> None:
    reports: dict[str, Report] = {
        "minilm": report_embeddings,
        "sentiment": report_accuracy,
        "smollm2": report_perplexity,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--models", nargs="+", default=list(reports), choices=list(reports))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--tokens", type=int, default=1_025, help="length of SmolLM2's text")
    arguments = parser.parse_args()
    print(conditions(arguments.threads))
    for model in arguments.models:
        reports[model](arguments.ways, arguments.threads, arguments.tokens)


def report_embeddings(ways: list[str], threads: int, tokens: int) -> None:
    """Print a row per way for MiniLM."""
    from serving.quality.agreement import cosine_similarities

    texts = sample_sentences()
    expected = answer(open_variant("fp32", threads), texts)
    print(f"\nMiniLM, {NUM_SENTENCES} sentences\n")
    print("| way | cosine to fp32, mean | smallest | MiB | prepared in, s |")
    print("|---|---|---|---|---|", flush=True)
    for way in ways:
        opened = open_variant(way.replace(" ", "-"), threads, **_form(way))
        cosines = cosine_similarities(answer(opened, texts), expected)
        manifest = opened.artifact.manifest
        print(
            f"| {way} | {cosines.mean():.4f} | {cosines.min():.4f} "
            f"| {manifest.weights_bytes / 2**20:.1f} | {manifest.seconds:.0f} |",
            flush=True,
        )


def report_accuracy(ways: list[str], threads: int, tokens: int) -> None:
    """Print a row per way for the classifier."""
    examples = read_examples(LABELLED, need_labels=True)
    texts = [str(example.input) for example in examples]

    def labels_of(name: str, **form: Any) -> tuple[NDArray[np.str_], float]:
        opened = open_variant(name, threads, "classification", CLASSIFIER, **form)
        labels = np.array(opened.task.labels)[answer(opened, texts).argmax(1)]
        return labels, opened.artifact.manifest.seconds

    true = np.array([example.label for example in examples])
    base, _ = labels_of("fp32")
    print(f"\n`sentiment`, {len(texts):,} held-out sentences; fp32 {np.mean(base == true):.4f}\n")
    print("| way | accuracy | points to fp32 | same label | prepared in, s |")
    print("|---|---|---|---|---|", flush=True)
    for way in ways:
        labels, seconds = labels_of(way.replace(" ", "-"), **_form(way))
        accuracy = float(np.mean(labels == true))
        points = 100 * (accuracy - float(np.mean(base == true)))
        print(
            f"| {way} | {accuracy:.4f} | {points:+.1f} | {np.mean(labels == base):.4f} "
            f"| {seconds:.0f} |",
            flush=True,
        )


def report_perplexity(ways: list[str], threads: int, tokens: int) -> None:
    """Print a row per way for SmolLM2."""
    exact = prepare_generator("fp32", VariantForm("fp32", "torch"), threads)
    text = read_tokens(exact, tokens)
    expected = asyncio.run(scores_of(exact.open_engine(), text))
    exactly = perplexity_of([expected]).value
    print(f"\nSmolLM2, {len(text) - 1:,} predictions; fp32 {exactly:.2f}\n")
    print("| way | perplexity | of fp32 (95 %) | same top token | MiB | prepared in, s |")
    print("|---|---|---|---|---|---|", flush=True)
    for way in ways:
        recipe, runtime, options = WAYS[way]
        if recipe == "int8-static":
            continue  # makes no generators
        generator = prepare_generator(recipe, VariantForm(recipe, runtime), threads, **options)
        scores = asyncio.run(scores_of(generator.open_engine(), text))
        ratio, manifest = perplexity_ratio([scores], [expected]), generator.artifact.manifest
        print(
            f"| {way} | {perplexity_of([scores]).value:.2f} "
            f"| {ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) "
            f"| {same_top_token([scores], [expected]).value:.3f} "
            f"| {manifest.weights_bytes / 2**20:.1f} | {manifest.seconds:.0f} |",
            flush=True,
        )


def _form(way: str) -> dict[str, Any]:
    recipe, runtime, options = WAYS[way]
    return {"recipe": recipe, "runtime": runtime, "options": dict(options)}


if __name__ == "__main__":
    main()
