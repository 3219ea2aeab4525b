"""What proposes tokens in a generator's replica: another variant's artifact."""

from __future__ import annotations

from dataclasses import dataclass

from serving.artifacts import Artifact, ArtifactRequest
from serving.config import DraftConfig
from serving.generator.drafting import Drafter
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import OpenGeneratorRequest


@dataclass(frozen=True, slots=True)
class Draft:
    """A variant that proposes tokens to another.

    Attributes:
        request: What its artifact was made of.
        artifact: From which it is opened.
    """

    request: ArtifactRequest
    artifact: Artifact

    def open(self, exact: OpenGeneratorRequest, section: DraftConfig) -> Drafter:
        """Open it in the thread that will run both, with as many slots as the exact variant has.

        Raises:
            ConfigError: This machine cannot run it.
        """
        open_decoder = RUNTIMES[self.request.runtime].open_decoder
        assert open_decoder is not None  # or the plan would have refused it
        decoder = open_decoder(
            OpenGeneratorRequest(
                folder=self.artifact.weights_folder,
                recipe=self.request.recipe,
                options=RECIPES[self.request.recipe].options(**self.request.options),
                device="cpu",
                threads=exact.threads,
                cores=exact.cores,
                max_running=exact.max_running,
                max_waiting=exact.max_waiting,
                max_tokens=exact.max_tokens,
                kv_cache=self.request.kv_cache,
            )
        )
        return Drafter(decoder, None if section.tokens == "auto" else section.tokens)
