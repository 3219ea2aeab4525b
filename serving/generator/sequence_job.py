"""A request on its way through the engine."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from serving.errors import RequestError
from serving.generator.sampling import Sampler
from serving.generator.scheduling import TokenSequence
from serving.seams import GeneratedToken, TokenLogprob, TokenRequest

Outbox = asyncio.Queue[GeneratedToken | RequestError | None]
"""What a sequence has for its consumer; None if nothing more will come since it was closed."""


@dataclass(slots=True, eq=False)
class SequenceJob:
    """A request, the sequence that it becomes, and what is measured of it on the way.

    Attributes:
        request: What is asked.
        outbox: Filled and emptied in the consumer's event loop.
        is_cancelled: Set by the consumer.
        is_drafted: Whether a cheaper decoder may propose its tokens.
        can_draft: Whether that still goes well.
        arrived: When, by ``time.perf_counter``; likewise ``started`` (the first step that worked
            on it) and ``first_token``.
        prompt_logprobs: Collected until the first token takes them along.
        core_wait: Seconds that its steps waited for cores.
        prefill_core_wait: Those of them before the first token.
    """

    request: TokenRequest
    outbox: Outbox = field(default_factory=asyncio.Queue)
    is_cancelled: bool = False
    is_drafted: bool = False
    can_draft: bool = field(init=False)
    arrived: float = field(default_factory=time.perf_counter)
    started: float | None = None
    first_token: float | None = None
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    core_wait: float = 0
    prefill_core_wait: float = 0
    sequence: TokenSequence = field(init=False)
    sampler: Sampler = field(init=False)

    def __post_init__(self) -> None:
        self.sequence = TokenSequence(self.request)
        self.sampler = Sampler(self.request.sampling, self.request.prompt, self.is_drafted)
        self.can_draft = self.is_drafted
