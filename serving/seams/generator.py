"""Generators: engines that continue a prompt token by token, many prompts at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from serving.seams.engine import DeviceName, Footprint
from serving.seams.grammar import Grammar

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: Divides the logits; 0 takes the most probable token.
        top_p: Smallest set of most probable tokens with at least this probability; 1 keeps all.
        top_k: Number of most probable tokens to choose among; 0 keeps all.
        seed: The same seed and prompt give the same tokens.
        frequency_penalty: Taken off a token's logit for each time that it was generated.
        presence_penalty: Taken off a token's logit once if it was generated.
        logprobs: Number of most probable tokens to report beside the chosen one; None reports no
            log-probability at all.
        min_p: Tokens that are less than so many times as probable as the most probable one are
            left out, of those that ``top_k`` and ``top_p`` keep; 0 keeps all.
        repetition_penalty: Divides the logits above 0, and multiplies those below, of every token
            of prompt and continuation; 1 leaves them.
        logit_bias: Pairs of a token's id and what is added to its logit before all else.
        grammar: Leaves out, before any token is chosen, those with which the continuation could
            not become a text of it; None leaves out none.
    """

    temperature: float
    top_p: float
    top_k: int
    seed: int
    frequency_penalty: float
    presence_penalty: float
    logprobs: int | None
    min_p: float = 0
    repetition_penalty: float = 1
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: Grammar | None = None


GREEDY = Sampling(
    temperature=0,
    top_p=1,
    top_k=0,
    seed=0,
    frequency_penalty=0,
    presence_penalty=0,
    logprobs=None,
)
"""Takes the most probable token each time."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One sequence that an engine shall continue.

    Attributes:
        prompt: Token ids, at least one.
        max_new_tokens: At least 1; 0 where only the prompt is scored: then one token comes
            nevertheless, with the scores, and needs no room.
        stop_tokens: Ids that end the sequence.
        sampling: How tokens are chosen.
        logprobs_from: Also report the log-probabilities of the prompt's tokens from this position
            on, at least 1, since the first token follows nothing. What stands before it may come
            out of the cache. None reports none.
        background: Nobody waits for it: it counts in no batch size.
    """

    prompt: tuple[int, ...]
    max_new_tokens: int
    stop_tokens: frozenset[int]
    sampling: Sampling
    logprobs_from: int | None = None
    background: bool = False


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its natural log-probability, and the most probable ones in its place.

    Attributes:
        token: Its id.
        logprob: Log of its probability under the model, before temperature and penalties.
        top: Pairs of id and log-probability, the most probable first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a sequence's time has gone so far, in seconds, and what it did not have to compute.

    Attributes:
        queue: From its arrival at the engine until the first step that works on it may begin.
        prefill: From there to its first token, without ``prefill_core_wait``.
        decode: From its first token to the latest, without ``decode_core_wait``.
        cached_tokens: Prompt tokens whose keys and values were in the cache already.
        prefill_core_wait: Before its first token, steps waited so long for cores which other
            replicas had; likewise ``decode_core_wait`` after it.
    """

    queue: float
    prefill: float
    decode: float
    cached_tokens: int
    prefill_core_wait: float = 0
    decode_core_wait: float = 0


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """One step's token of one sequence.

    Attributes:
        token: Its id; a stop token is reported too, as the last.
        finish: Why the sequence ends with this token; None if it goes on.
        progress: Times up to this token.
        logprob: Its log-probability, if the request asked for it.
        prompt: Log-probabilities of the prompt's tokens from ``logprobs_from`` on; with the first
            token only.
    """

    token: int
    finish: FinishReason | None
    progress: Progress
    logprob: TokenLogprob | None = None
    prompt: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class GeneratorLoad:
    """How busy a generator is now.

    Attributes:
        running: Sequences that hold a place in the cache.
        waiting: Sequences that wait for one.
        background: Those of both that belong to background requests.
        kv_cache_bytes: Size of the whole cache of keys and values.
        kv_cache_used: Share of it that running sequences occupy, 0 … 1.
    """

    running: int
    waiting: int
    background: int
    kv_cache_bytes: int
    kv_cache_used: float


@dataclass(frozen=True, slots=True)
class DraftCounts:
    """What became of tokens that a draft proposed.

    Attributes:
        accepted: The exact variant chose them, too.
        rejected: It chose another in their place.
        unread: They followed one that was rejected, or the end of the text.
    """

    accepted: int
    rejected: int
    unread: int

    def __add__(self, other: DraftCounts) -> DraftCounts:
        return DraftCounts(
            self.accepted + other.accepted,
            self.rejected + other.rejected,
            self.unread + other.unread,
        )

    @property
    def acceptance(self) -> float | None:
        """Share of the tokens in whose place the exact variant chose; None before the first."""
        judged = self.accepted + self.rejected
        return self.accepted / judged if judged else None


class TokenIterator(Protocol):
    """The tokens of one sequence as they come; the last, and no other, has a ``finish``."""

    def __aiter__(self) -> AsyncIterator[GeneratedToken]:
        """Return itself."""

    async def __anext__(self) -> GeneratedToken:
        """Wait for the next token.

        Raises:
            RequestError: What ended the sequence before its time.
        """

    async def aclose(self) -> None:
        """End the sequence and free its place at once."""


class GeneratorEngine(Protocol):
    """Continues many sequences at once; each joins and leaves between two steps.

    All methods but ``close`` are called in one event loop.
    """

    max_tokens: int
    """Most tokens of a sequence, prompt and continuation together."""

    can_score: bool
    """Whether it reports log-probabilities of a prompt, as ``TokenRequest.logprobs_from`` asks."""

    @property
    def device(self) -> DeviceName:
        """Where the weights are."""

    def generate(self, request: TokenRequest) -> TokenIterator:
        """Continue a sequence.

        Raises:
            InvalidField: Prompt and continuation can never fit.
            QueueFull: As many sequences wait as may.
        """

    def load(self) -> GeneratorLoad:
        """Say how busy the engine is now."""

    def observe_steps(self, on_step: Callable[[int], None]) -> None:
        """Have ``on_step`` called in the event loop for each step from now on.

        It gets the number of sequences that the step worked on, those of background requests left
        out; steps that worked on these alone, or failed, are not reported.
        """

    def check_health(self) -> None:
        """Raise ``RuntimeError`` if the engine is stuck, or fails its self-test."""

    def footprint(self) -> Footprint:
        """Measure what the engine occupies now; its weights without the cache."""

    def close(self) -> None:
        """End the engine's threads."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens of one sequence, for one step of a decoder.

    Attributes:
        slot: The sequence's place in the cache.
        start: Position of the first token. The cache holds as many of the sequence already; what
            else it holds of the slot, such as tokens that were tried and rejected, is forgotten.
        token_ids: The tokens, at least one.
        num_logits: After how many of its last tokens the logits are wanted; 0 in the middle of a
            prompt.
    """

    slot: int
    start: int
    token_ids: Sequence[int]
    num_logits: int = 1


@runtime_checkable
class SharesPrefixes(Protocol):
    """A decoder that can do so, too: give a slot what another holds already."""

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """Have ``target`` hold the first tokens of ``source``, and nothing else.

        It costs little beside computing them. Both go on as if each had computed its own.
        """


class Decoder(Protocol):
    """A causal language model with a cache of keys and values in slots of fixed size.

    Not thread-safe: one thread loads it and takes every step.
    """

    num_slots: int
    slot_tokens: int
    """Most tokens of one slot."""

    @property
    def device(self) -> DeviceName:
        """Where the weights are."""

    @property
    def kv_cache_bytes(self) -> int:
        """Size of the whole cache."""

    def use_cores(self, cores: Sequence[int]) -> None:
        """Run on these cores from now on; see ``EncoderEngine.use_cores``."""

    def step(self, segments: Sequence[Segment]) -> NDArray[np.float32]:
        """Put the segments' tokens into the cache; each slot occurs once at most.

        Returns:
            float32 (rows, vocabulary): the logits that the segments want, in their order. The
            caller may change the array.
        """

    def footprint(self) -> Footprint:
        """Measure what the decoder occupies now; its weights without the cache."""
