"""How probable given tokens are: one forward pass of a generator over what is there already."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace

from serving.errors import CannotScore, InvalidField
from serving.metrics import GeneratorMetrics
from serving.replica.generator.background_metrics import BackgroundMetrics
from serving.replica.tokenizing import Tokenizing
from serving.seams import (
    GREEDY,
    NUM_TRACED,
    GenerationTask,
    GeneratorEngine,
    ScoreRequest,
    TokenLogprob,
    TokenRequest,
)

SCORED = replace(GREEDY, logprobs=NUM_TRACED)


@dataclass(frozen=True, slots=True)
class Scoring:
    """Scores continuations with an engine that generates.

    Attributes:
        model: Its public name, for messages.
        task: Tokenizes.
        engine: Scores.
        tokenizing: Where texts are tokenized.
    """

    model: str
    task: GenerationTask
    engine: GeneratorEngine
    tokenizing: Tokenizing

    async def encode(self, request: ScoreRequest) -> TokenRequest:
        """Make a request to the engine out of it.

        Raises:
            InvalidField: There is nothing to score, or more than fits.
            CannotScore: The engine never does.
        """
        if not self.engine.can_score:
            raise CannotScore(
                f"what runs {self.model!r} here cannot say how probable given tokens are",
                param="model",
            )
        prompt, continuation = await self._tokens(request)
        if not continuation:
            raise InvalidField("continuation has no token to score", param="continuation")
        tokens = prompt + continuation
        if len(tokens) > self.engine.max_tokens:
            raise InvalidField(
                f"prompt and continuation have {len(tokens)} tokens; {self.model!r} takes "
                f"{self.engine.max_tokens}. Shorten them",
                param="continuation",
            )
        return TokenRequest(
            prompt=tokens,
            max_new_tokens=0,
            stop_tokens=frozenset(),
            sampling=SCORED,
            logprobs_from=max(len(prompt), 1),
            background=request.background,
        )

    async def score(
        self, asked: TokenRequest, metrics: GeneratorMetrics | BackgroundMetrics
    ) -> tuple[TokenLogprob, ...]:
        """Score what ``encode`` made; see ``GeneratorBackend.score``."""
        if asked.logprobs_from == len(asked.prompt):  # a single token follows nothing
            return ()
        async with aclosing(self.engine.generate(asked)) as stream:
            async for generated in stream:
                metrics.observe_prompt(len(asked.prompt), generated.progress.cached_tokens)
                return generated.prompt
        raise RuntimeError("the engine ended a sequence without a reason")

    async def _tokens(self, request: ScoreRequest) -> tuple[tuple[int, ...], tuple[int, ...]]:
        prompt, continuation = request.prompt, request.continuation
        if not isinstance(prompt, str) and not isinstance(continuation, str):
            return prompt, continuation
        if not isinstance(prompt, str) or not isinstance(continuation, str):
            raise InvalidField(
                "give prompt and continuation both as texts, or both as token ids",
                param="continuation",
            )
        return await self.tokenizing.run(
            len(prompt) + len(continuation), self.task.encode_continuation, prompt, continuation
        )
