"""The local backend of a generator: prompts in, text out, all choices of a request at once."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from serving.errors import InternalError, QueueFull, RequestError
from serving.generator.grammar import Grammars
from serving.metrics import GeneratorMetrics
from serving.replica.admission import Admission
from serving.replica.deadline import deadline
from serving.replica.generator.background_metrics import BackgroundMetrics
from serving.replica.generator.choices import check_request, make_choices, num_choices, summarize
from serving.replica.generator.continuation import Prompt
from serving.replica.generator.running_choices import RunningChoices
from serving.replica.generator.scoring import Scoring
from serving.replica.tokenizing import Tokenizing
from serving.seams import (
    Description,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    GenerationTask,
    GeneratorEngine,
    ScoreRequest,
    TokenizedText,
    TokenLogprob,
    TokensRequest,
)

logger = logging.getLogger("ray.serve.quantserve")


class LocalGenerator:
    """Answers requests with a generator in this process.

    Args:
        model: Its public name, for messages.
        task: Tokenizes and detokenizes.
        engine: Continues sequences.
        max_sequences: How many the engine takes at once, those that wait included.
        metrics: Measures.
        describe: Says what is loaded.
    """

    def __init__(
        self,
        model: str,
        task: GenerationTask,
        engine: GeneratorEngine,
        max_sequences: int,
        metrics: GeneratorMetrics,
        describe: Callable[[], Description],
    ) -> None:
        self._model = model
        self._task = task
        self._engine = engine
        self._max_sequences = max_sequences
        self._metrics = metrics
        self._describe = describe
        self._tokenizing = Tokenizing()
        self._grammars = Grammars(task.token_table)
        self._scoring = Scoring(model, task, engine, self._tokenizing)
        self._admission = Admission(metrics.busy.inc)
        self._on_their_way: Counter[bool] = Counter()
        """Sequences that the engine has not got yet, by whether they are background ones."""
        metrics.in_flight.set_function(lambda: self._admission.in_flight)

    async def describe(self) -> Description:
        """Say what is loaded."""
        return self._describe()

    async def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        """Generate; see ``GeneratorBackend.stream``.

        Pieces of a choice that come while the consumer is busy are sent as one, so no more is
        kept than ``max_tokens`` of each choice.
        """
        arrived = time.perf_counter()
        with self._answering("generating", request.background) as metrics:
            check_request(request, self._model, self._max_sequences)
            limit_s = min(request.first_token_timeout_s, request.timeout_s)
            async with deadline(limit_s, "no first token"):
                with self._room(num_choices(request), request.background):
                    prompts = await self._encode(request)
                    request = await self._with_grammar(request)
            tokenize = time.perf_counter() - arrived
            metrics.observe_tokenize(tokenize)
            choices = make_choices(
                request, prompts, self._task, self._model, self._engine.max_tokens
            )
            async with RunningChoices(self._engine, choices, request, arrived, metrics) as run:
                while (choice := await run.next_news()) is not None:
                    yield choice.chunk(tokenize, arrived)
            yield summarize(choices, request, tokenize, arrived)

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        """Score each token of the continuation; see ``GeneratorBackend.score``."""
        arrived = time.perf_counter()
        with self._answering("scoring", request.background) as metrics:
            async with deadline(request.timeout_s, "no answer"):
                with self._room(1, request.background):
                    asked = await self._scoring.encode(request)
                metrics.observe_tokenize(time.perf_counter() - arrived)
                return await self._scoring.score(asked, metrics)

    async def tokens(self, request: TokensRequest) -> TokenizedText:
        """Tokenize; see ``GeneratorBackend.tokens``."""
        characters = len(request.text) + len(request.tokens)
        async with deadline(request.timeout_s, "no answer"):
            if request.messages:  # a template is a program, and may take its time
                return await self._tokenizing.run_in_thread(self._tokenized, request)
            return await self._tokenizing.run(characters, self._tokenized, request)

    def _tokenized(self, request: TokensRequest) -> TokenizedText:
        task, tokens, text = self._task, request.tokens, request.text
        if request.messages:
            tokens = task.encode_chat(request.messages, request.tools)
        elif request.tokens:
            text = task.decode_prompt(tokens)
        else:
            # A prompt may not be longer than the model takes; a continuation may.
            _, tokens = task.encode_continuation("", text)
        names = tuple(task.token_text(token)[0] for token in tokens)
        return TokenizedText(tokens, names, text, self._engine.max_tokens)

    @contextmanager
    def _answering(
        self, what: str, background: bool
    ) -> Iterator[GeneratorMetrics | BackgroundMetrics]:
        """Let a request in, say where to measure it, and let no unforeseen error out."""
        try:
            with self._admission.admit(background):
                yield BackgroundMetrics() if background else self._metrics
        except RequestError:
            raise
        except Exception:
            logger.exception("%s failed", what)
            raise InternalError(f"{what} failed; see the log of the replica") from None

    @contextmanager
    def _room(self, num_sequences: int, background: bool) -> Iterator[None]:
        """Keep room in the engine for sequences whose prompts are tokenized meanwhile.

        Background requests take none away from the others.

        Raises:
            QueueFull: The engine would refuse them; so their prompts need no work.
        """
        load = self._engine.load()
        others = load.running + load.waiting - load.background
        num_there = self._on_their_way[background] + (load.background if background else others)
        if num_there + num_sequences > self._max_sequences:
            raise QueueFull(
                f"{num_there} sequences run or wait, {num_sequences} more were asked for, and at "
                f"most {self._max_sequences} may; retry later",
                retry_after_s=1,
            )
        self._on_their_way[background] += num_sequences
        try:
            yield
        finally:
            self._on_their_way[background] -= num_sequences

    async def _encode(self, request: GenerationRequest) -> list[Prompt]:
        if request.messages:  # a template is a program, and may take its time
            return await self._tokenizing.run_in_thread(self._prompts, request)
        characters = sum(map(len, request.prompts))
        return await self._tokenizing.run(characters, self._prompts, request)

    async def _with_grammar(self, request: GenerationRequest) -> GenerationRequest:
        lark = self._task.answer_grammar(request.answer_schema, request.tool_use)
        if lark is None:
            return request
        field = "response_format" if request.tool_use is None else "tools"
        grammar = await self._tokenizing.run_in_thread(self._grammars.compile, lark, field)
        return replace(request, sampling=replace(request.sampling, grammar=grammar))

    def _prompts(self, request: GenerationRequest) -> list[Prompt]:
        if request.messages:
            tools = () if request.tool_use is None else request.tool_use.tools
            return [Prompt(self._task.encode_chat(request.messages, tools), "")]
        return [self._prompt(prompt) for prompt in request.prompts]

    def _prompt(self, prompt: str | tuple[int, ...]) -> Prompt:
        if isinstance(prompt, str):
            return Prompt(self._task.encode_prompt(prompt), prompt)
        return Prompt(prompt, self._task.decode_prompt(prompt))
