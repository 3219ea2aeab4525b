"""Requests to generators, one by one and in company."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from serving.seams import GREEDY, GeneratedToken, GeneratorEngine, Sampling, TokenRequest
from tests.unit.runtimes.tiny_generators import random_tokens


def requests(sampling: Sampling = GREEDY) -> list[TokenRequest]:
    """Prompts of any length, some with a beginning in common, and room for all in one slot."""
    random = np.random.default_rng(0)
    shared = random_tokens(30, seed=99)
    prompts = [random_tokens(int(random.integers(1, 90)), seed) for seed in range(5)]
    prompts += [shared + random_tokens(int(random.integers(1, 30)), seed) for seed in range(3)]
    return [
        TokenRequest(tuple(prompt), int(random.integers(10, 35)), frozenset(), sampling)
        for prompt in prompts
    ]


async def tokens_of(stream: AsyncIterator[GeneratedToken]) -> list[int]:
    return [event.token async for event in stream]


async def one_by_one(engine: GeneratorEngine, asked: Sequence[TokenRequest]) -> list[list[int]]:
    return [await tokens_of(engine.generate(request)) for request in asked]


@dataclass
class Arrivals:
    """Starts each request once the ones before it have got so many tokens together."""

    engine: GeneratorEngine
    seed: int

    async def run(self, asked: Sequence[TokenRequest]) -> list[list[int]]:
        random = np.random.default_rng(self.seed)
        order = random.permutation(len(asked)).tolist()
        sums = [0, *accumulate(asked[i].max_new_tokens for i in order[:-1])]
        # Never more than the earlier ones are sure to get.
        waits = {i: int(random.integers(0, s // 3 + 1)) for i, s in zip(order, sums, strict=True)}
        self.seen, self.news = 0, asyncio.Condition()
        return await asyncio.gather(*(self._one(r, waits[i]) for i, r in enumerate(asked)))

    async def _one(self, request: TokenRequest, wait: int) -> list[int]:
        async with self.news:
            await self.news.wait_for(lambda: self.seen >= wait)
        tokens = []
        async for event in self.engine.generate(request):
            tokens.append(event.token)
            async with self.news:
                self.seen += 1
                self.news.notify_all()
        return tokens
