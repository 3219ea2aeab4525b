"""The paged generator on the CPU: every sequence as if it were alone, whoever comes and goes."""

from __future__ import annotations

import asyncio
import gc
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation.continuous_batching.requests import FutureRequestState, RequestState

from serving.cores import UnsharedCores
from serving.errors import ConfigError, InputFails, InternalError, InvalidField, NotReady, QueueFull
from serving.generator.sampling import Sampler
from serving.generator.token_stream import TokenStream
from serving.runtimes.torch.cuda import page_cache, paged_generator, paged_steps
from serving.runtimes.torch.cuda.page_cache import PAGE_TOKENS
from serving.runtimes.torch.cuda.paged_generator import PagedGenerator
from serving.runtimes.torch.cuda.paged_steps import Steps
from serving.runtimes.torch.cuda.token_chooser import MAX_TOP_LOGPROBS, NUM_INTEGERS, TokenChooser
from serving.runtimes.torch.footprint import weights_bytes
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import (
    Checkpoint,
    GeneratedToken,
    GeneratorEngine,
    NoOptions,
    OpenGeneratorRequest,
    TokenIterator,
    TokenLogprob,
    TokenRequest,
)
from tests.unit.fakes.waiting import MAX_WAIT_S
from tests.unit.generator.leaving import WAYS_TO_LEAVE
from tests.unit.generator.reference import request

VOCABULARY = 96
LONG = 60
"""New tokens of a sequence that shall not end before the test ends it."""


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """The library collects garbage at each engine's end; spare it what was there before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        # Ten times the usual spread, or a random model would repeat its last token for ever.
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return Checkpoint(folder)


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32).eval()


def model_of(checkpoint: Checkpoint) -> nn.Module:
    return load_pretrained(checkpoint, "AutoModelForCausalLM", torch.float32)


def asked_for(
    max_running: int = 1,
    max_waiting: int = 1,
    max_tokens: int = 80,
    stuck_after_s: float = math.inf,
) -> OpenGeneratorRequest:
    """On the CPU, where the engine runs as well."""
    return OpenGeneratorRequest(
        folder=Path("unused"),
        recipe="fp32",
        options=NoOptions(),
        device="cpu",
        threads=2,
        cores=UnsharedCores(2),
        max_running=max_running,
        max_waiting=max_waiting,
        max_tokens=max_tokens,
        stuck_after_s=stuck_after_s,
    )


class Bench:
    """An engine whose steps a test can see, hold and break."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        max_running: int = 2,
        max_waiting: int = 100,
        max_tokens: int = 80,
        stuck_after_s: float = math.inf,
    ) -> None:
        self.steps: list[list[int]] = []
        self.gate, self.held = threading.Event(), threading.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.model = model_of(checkpoint)
        self.model.register_forward_pre_hook(self._before_step, with_kwargs=True)
        self.engine = PagedGenerator(
            self.model, asked_for(max_running, max_waiting, max_tokens, stuck_after_s)
        )

    def _before_step(self, model: nn.Module, args: object, kwargs: dict[str, Any]) -> None:
        self.steps.append(kwargs["input_ids"][0].tolist())
        gate = self.gate
        if not gate.is_set():
            self.held.set()
            assert gate.wait(MAX_WAIT_S)
        if self.failure is not None:
            raise self.failure

    def hold(self) -> None:
        """Let a step that is held run, and hold the next one."""
        self.held.clear()
        gate, self.gate = self.gate, threading.Event()
        gate.set()

    async def until_held(self) -> None:
        assert await asyncio.to_thread(self.held.wait, MAX_WAIT_S)

    async def occupy(self, num_sequences: int) -> list[TokenStream]:
        """Start sequences and hold a step in which all of them decode."""
        streams = [self.engine.generate(request([i + 1], LONG)) for i in range(num_sequences)]
        for stream in streams:
            await anext(stream)
        self.hold()
        await self.until_held()
        return streams

    def release(self) -> None:
        """Let the held step and all later ones run."""
        self.gate.set()


Build = Callable[..., Bench]


@pytest.fixture
def build(checkpoint: Checkpoint) -> Iterator[Build]:
    benches: list[Bench] = []

    def build_bench(**sizes: Any) -> Bench:
        benches.append(Bench(checkpoint, **sizes))
        return benches[-1]

    yield build_bench
    for bench in benches:
        bench.release()
        bench.engine.close()


def logits_after(model: LlamaForCausalLM, tokens: Sequence[int]) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0, -1].numpy()


def expected(
    model: LlamaForCausalLM, asked: TokenRequest
) -> tuple[list[int], list[TokenLogprob | None]]:
    """The continuation by the CPU's sampler, alone and without any cache."""
    sampler, tokens, logprobs = Sampler(asked.sampling), list(asked.prompt), []
    for _ in range(asked.max_new_tokens):
        token, logprob = sampler.choose(logits_after(model, tokens))
        tokens.append(token)
        logprobs.append(logprob)
        if token in asked.stop_tokens:
            break
    return tokens[len(asked.prompt) :], logprobs


def greedy(model: Any, prompt: Sequence[int], max_new_tokens: int) -> list[int]:
    """What transformers' own ``generate`` says."""
    ids = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return ids[0, len(prompt) :].tolist()


async def collect(stream: TokenIterator) -> list[GeneratedToken]:
    async with asyncio.timeout(MAX_WAIT_S):
        return [token async for token in stream]


async def generate(bench: Bench, asked: TokenRequest) -> list[int]:
    async with aclosing(bench.engine.generate(asked)) as stream:
        return [token.token for token in await collect(stream)]


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(VOCABULARY), k=length)


async def test_greedy_is_what_generate_says(build: Build, reference: LlamaForCausalLM) -> None:
    bench = build()
    engine: GeneratorEngine = bench.engine
    prompt = prompt_of(9)
    tokens = await collect(engine.generate(request(prompt, 30)))
    assert [token.token for token in tokens] == greedy(reference, prompt, 30)
    assert len({token.token for token in tokens}) > 5
    assert [token.finish for token in tokens] == [None] * 29 + ["length"]
    assert all(token.logprob is None and token.prompt == () for token in tokens)


@pytest.mark.parametrize("is_captured", [False, True])
async def test_among_others_a_sequence_is_the_same(
    build: Build, reference: LlamaForCausalLM, is_captured: bool
) -> None:
    bench = build(max_running=3)
    bench.engine._steps._is_captured = is_captured
    chance = random.Random(1)
    asked = [
        request(
            prompt_of(chance.randint(1, 30), seed),
            chance.randint(1, 16),
            temperature=chance.choice([0.0, 0.7, 1.3]),
            top_p=chance.choice([1.0, 0.8]),
            top_k=chance.choice([0, 5]),
            seed=chance.randrange(10_000),
            frequency_penalty=chance.choice([0.0, 1.5]),
            presence_penalty=chance.choice([0.0, -1.0]),
        )
        for seed in range(14)
    ]

    async def client(mine: Sequence[TokenRequest]) -> None:
        for one in mine:
            assert await generate(bench, one) == expected(reference, one)[0]

    await asyncio.gather(*[client(asked[i::5]) for i in range(5)])
    assert max(map(len, bench.steps)) > 1


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 1.0},
        {"temperature": 1.0, "top_p": 0.5},
        {"temperature": 2.0, "top_k": 3},
        {"temperature": 1e-40},
        {"temperature": 1.5, "presence_penalty": 2.0, "frequency_penalty": 1.0},
        {"frequency_penalty": 0.7},
        {"presence_penalty": 2.0},
        {"frequency_penalty": -2.0},
    ],
)
async def test_sampling_is_that_of_the_cpu(
    build: Build, reference: LlamaForCausalLM, changes: dict[str, Any]
) -> None:
    bench = build()
    asked = [request(prompt_of(5), 25, seed=seed, **changes) for seed in (3, 2**64 - 1)]
    found = [await generate(bench, one) for one in asked]
    assert found == [expected(reference, one)[0] for one in asked]
    is_drawn = changes.get("temperature", 0) > 0.5
    assert (found[0] != found[1]) == is_drawn
    assert found[0] != greedy(reference, prompt_of(5), 25) or "temperature" in changes


async def test_a_new_sequence_does_not_pay_for_the_last_one_s_tokens(
    build: Build, reference: LlamaForCausalLM
) -> None:
    bench = build(max_running=1)
    asked = request(prompt_of(5), 20, frequency_penalty=2.0)
    for _ in range(2):
        assert await generate(bench, asked) == expected(reference, asked)[0]


@pytest.mark.parametrize("count", [0, 4, MAX_TOP_LOGPROBS])
async def test_logprobs_are_those_of_the_model(
    build: Build, reference: LlamaForCausalLM, count: int
) -> None:
    bench = build()
    asked = request(prompt_of(5), 10, temperature=1.2, presence_penalty=1.0, seed=5, logprobs=count)
    other = request(prompt_of(7), 10)
    tokens, others = await asyncio.gather(
        collect(bench.engine.generate(asked)), collect(bench.engine.generate(other))
    )
    assert all(token.logprob is None for token in others)
    ids, logprobs = expected(reference, asked)
    assert [token.token for token in tokens] == ids
    for token, wanted in zip(tokens, logprobs, strict=True):
        assert token.logprob is not None
        assert wanted is not None
        # float32 on the device, float64 in the CPU's sampler
        assert token.logprob.logprob == pytest.approx(wanted.logprob, abs=1e-4)
        assert len(token.logprob.top) == count
        assert [i for i, _ in token.logprob.top] == [i for i, _ in wanted.top]
        found = [logprob for _, logprob in token.logprob.top]
        assert found == pytest.approx([logprob for _, logprob in wanted.top], abs=1e-4)


def scores_of(
    model: LlamaForCausalLM, tokens: Sequence[int], start: int, count: int
) -> list[TokenLogprob]:
    """Log-probabilities of the tokens from ``start`` on, by one pass over all of them."""
    with torch.inference_mode():
        logits = model(torch.tensor([tokens])).logits[0].double()
    scored = []
    for row, token in zip(logits[start - 1 : -1].log_softmax(-1), tokens[start:], strict=True):
        values, ids = row.topk(count)
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        scored.append(TokenLogprob(token, float(row[token]), top))
    return scored


def assert_same_scores(found: Sequence[TokenLogprob], wanted: Sequence[TokenLogprob]) -> None:
    assert [score.token for score in found] == [score.token for score in wanted]
    for one, other in zip(found, wanted, strict=True):
        # float32 here, token by token; float64 of one pass there
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert [i for i, _ in one.top] == [i for i, _ in other.top]
        assert [p for _, p in one.top] == pytest.approx([p for _, p in other.top], abs=1e-4)


@pytest.mark.parametrize("start", [1, 7, 12])
async def test_a_prompt_is_scored(build: Build, reference: LlamaForCausalLM, start: int) -> None:
    bench = build()
    prompt = prompt_of(12)
    other = asyncio.create_task(generate(bench, request(prompt_of(5, 1), 30)))
    asked = request(prompt, 0, logprobs_from=start, logprobs=3)
    [event] = await collect(bench.engine.generate(asked))
    assert_same_scores(event.prompt, scores_of(reference, prompt, start, 3))
    assert event.finish == "length"
    assert await other == greedy(reference, prompt_of(5, 1), 30)
    assert bench.engine.load().running == 0


@pytest.mark.parametrize("temperature", [0.0, 1.2])
async def test_a_prompt_that_is_scored_goes_on_as_any_other(
    build: Build, reference: LlamaForCausalLM, temperature: float
) -> None:
    bench = build()
    prompt = prompt_of(9)
    asked = request(prompt, 10, logprobs=2, temperature=temperature, seed=3, presence_penalty=1.5)
    events = await collect(bench.engine.generate(replace(asked, logprobs_from=1)))
    assert [event.token for event in events] == expected(reference, asked)[0]
    assert [event.finish for event in events] == [None] * 9 + ["length"]
    assert_same_scores(events[0].prompt, scores_of(reference, prompt, 1, 2))
    assert not any(event.prompt for event in events[1:])


async def test_stop_tokens_in_a_prompt_that_is_scored_end_nothing(
    build: Build, reference: LlamaForCausalLM
) -> None:
    bench = build(max_running=1)
    prompt = prompt_of(8)
    stop = prompt[3]
    asked = replace(request(prompt, 40, [stop], logprobs=0), logprobs_from=1)
    [*events, last] = await collect(bench.engine.generate(asked))
    assert_same_scores(events[0].prompt, scores_of(reference, prompt, 1, 0))
    assert [event.finish for event in events] == [None] * len(events)
    continuation = greedy(reference, prompt, 40)
    found = [event.token for event in [*events, last]]
    if stop in continuation:
        continuation = continuation[: continuation.index(stop) + 1]
    assert found == continuation
    assert last.finish == ("stop" if found[-1] == stop else "length")


async def test_a_stop_token_after_a_prompt_that_is_scored_ends_it(
    build: Build, reference: LlamaForCausalLM
) -> None:
    bench = build(max_running=1)
    prompt = prompt_of(6)
    continuation = greedy(reference, prompt, 20)
    stop = continuation[8]
    first = continuation.index(stop)
    asked = replace(request(prompt, 20, [stop], logprobs=0), logprobs_from=2)
    events = await collect(bench.engine.generate(asked))
    assert [event.token for event in events] == continuation[: first + 1]
    assert [event.finish for event in events] == [None] * first + ["stop"]
    # Its place is free again, and nothing of it reaches the next one.
    assert await generate(bench, request([3], 5)) == greedy(reference, [3], 5)


async def test_a_prompt_as_long_as_a_sequence_may_be_is_scored(
    build: Build, reference: LlamaForCausalLM
) -> None:
    bench = build(max_running=1, max_tokens=PAGE_TOKENS)
    prompt = prompt_of(PAGE_TOKENS)
    start = PAGE_TOKENS - 20
    asked = request(prompt, 0, logprobs_from=start, logprobs=0)
    for _ in range(2):  # the second time out of the cache, as far as it goes
        [event] = await collect(bench.engine.generate(asked))
        assert_same_scores(event.prompt, scores_of(reference, prompt, start, 0))


async def test_a_stop_token_ends_a_sequence(build: Build, reference: LlamaForCausalLM) -> None:
    bench = build()
    prompt = prompt_of(6)
    continuation = greedy(reference, prompt, 20)
    stop = continuation[8]
    first = continuation.index(stop)
    tokens = await collect(bench.engine.generate(request(prompt, 20, [stop, VOCABULARY - 1])))
    assert [token.token for token in tokens] == continuation[: first + 1]
    assert [token.finish for token in tokens] == [None] * first + ["stop"]
    last = await collect(bench.engine.generate(request(prompt, first + 1, [stop])))
    assert last[-1].finish == "stop"


async def test_long_prompts_are_read_in_pieces_while_others_decode(
    build: Build, reference: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_cache, "CHUNK_TOKENS", 64)
    bench = build(max_running=2, max_tokens=700)
    prompt, short = prompt_of(2 * PAGE_TOKENS + 30), prompt_of(4)
    stream = bench.engine.generate(request(short, 40))
    await anext(stream)
    assert await generate(bench, request(prompt, 5)) == greedy(reference, prompt, 5)
    rest = await collect(stream)
    assert [token.token for token in rest] == greedy(reference, short, 40)[1:]
    assert max(map(len, bench.steps)) == 2 + 64


async def test_a_prefix_that_is_in_the_cache_is_not_computed_again(
    build: Build, reference: LlamaForCausalLM
) -> None:
    bench = build(max_running=1, max_tokens=600)
    shared = prompt_of(PAGE_TOKENS + 10)
    first = await collect(bench.engine.generate(request(shared, 3)))
    assert [token.progress.cached_tokens for token in first] == [0, 0, 0]
    prompt = [*shared, 1, 2, 3]
    tokens = await collect(bench.engine.generate(request(prompt, 3)))
    assert [token.progress.cached_tokens for token in tokens] == [PAGE_TOKENS] * 3
    assert [token.token for token in tokens] == greedy(reference, prompt, 3)
    assert sum(map(len, bench.steps)) == len(shared) + 2 + len(prompt) - PAGE_TOKENS + 2


async def test_pages_of_the_past_never_take_a_sequence_s_place(
    build: Build, reference: LlamaForCausalLM
) -> None:
    bench = build(max_running=2, max_tokens=2 * PAGE_TOKENS)
    running = bench.engine.generate(request([1], 400))
    await anext(running)
    asked = [request(prompt_of(2 * PAGE_TOKENS - 4, seed), 4) for seed in range(7)]
    for one in asked:
        assert await generate(bench, one) == greedy(reference, one.prompt, 4)
    # None of them waited for the end of the first, to get the pages of those before it.
    assert bench.engine.load().running == 1
    assert len(await collect(running)) == 399
    # And none was computed twice, as it would be after losing its pages to another.
    assert sum(map(len, bench.steps)) == 7 * (2 * PAGE_TOKENS - 4 + 3) + 400


async def test_times_add_up(build: Build) -> None:
    bench = build(max_running=1)
    began = time.perf_counter()
    first, second = [bench.engine.generate(request([i], 5)) for i in range(2)]
    early = await collect(first)
    late = await collect(second)
    for tokens in (early, late):
        progress = [token.progress for token in tokens]
        assert len({(p.queue, p.prefill) for p in progress}) == 1
        assert [p.decode for p in progress] == sorted(p.decode for p in progress)
        assert progress[0].decode == 0 < progress[-1].decode
        assert min(progress[0].queue, progress[0].prefill) > 0
        last = progress[-1]
        assert last.queue + last.prefill + last.decode < time.perf_counter() - began
    end = early[-1].progress
    # Both arrived together: the second waits until the first has ended.
    assert late[0].progress.queue > end.prefill + end.decode


async def test_what_can_never_fit_is_refused_at_once(build: Build) -> None:
    bench = build(max_tokens=64)
    assert bench.engine.max_tokens == 64
    with pytest.raises(InvalidField) as caught:
        bench.engine.generate(request(range(40), 25))
    assert caught.value.param == "max_tokens"
    assert all(number in caught.value.message for number in ("40", "25", "65", "64"))
    assert len(await generate(bench, request(range(40), 24))) == 24


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (request([1, 2], 1, logprobs=MAX_TOP_LOGPROBS + 1), "logprobs"),
        (request([1, 2], 1, min_p=0.1), "min_p"),
        (request([1, 2], 1, repetition_penalty=1.1), "repetition_penalty"),
        (request([1, 2], 1, logit_bias=((3, 1.0),)), "logit_bias"),
    ],
)
async def test_what_is_not_supported_is_refused_by_name(
    build: Build, asked: TokenRequest, param: str
) -> None:
    bench = build()
    with pytest.raises(InvalidField) as caught:
        bench.engine.generate(asked)
    assert caught.value.param == param
    assert bench.engine.load().waiting == bench.engine.load().running == 0


async def test_a_full_queue_refuses_and_says_when_to_retry(
    build: Build, reference: LlamaForCausalLM
) -> None:
    bench = build(max_running=2, max_waiting=3)
    running = await bench.occupy(2)
    waiting = [bench.engine.generate(request([7], 1)) for _ in range(3)]
    with pytest.raises(QueueFull) as caught:
        bench.engine.generate(request([8], 1))
    assert caught.value.retry_after_s == 1
    await waiting[1].aclose()
    bench.engine.generate(request([9], 1))
    bench.release()
    tokens = await collect(waiting[2])
    assert [token.token for token in tokens] == greedy(reference, [7], 1)
    for stream in running:
        await stream.aclose()


async def test_sequences_get_places_in_order_of_arrival(build: Build) -> None:
    bench = build(max_running=1)
    [running] = await bench.occupy(1)
    streams = [bench.engine.generate(request([i, i], 1)) for i in (92, 90, 91)]
    bench.release()
    await running.aclose()
    for stream in reversed(streams):
        await collect(stream)
    assert bench.steps[-3:] == [[92, 92], [90, 90], [91, 91]]


@pytest.mark.parametrize("leave", WAYS_TO_LEAVE)
async def test_a_consumer_that_leaves_frees_its_place(
    build: Build, reference: LlamaForCausalLM, leave: Callable[[TokenStream], Any]
) -> None:
    bench = build(max_running=2)
    streams = await bench.occupy(2)
    waiting = bench.engine.generate(request(prompt_of(8), 4))
    held = len(bench.steps)
    await leave(streams[0])
    load = bench.engine.load()
    assert load.running + load.waiting == 2
    await asyncio.sleep(0)  # the loop takes the place from one and gives it to the other
    bench.release()
    tokens = await collect(waiting)
    assert [token.token for token in tokens] == greedy(reference, prompt_of(8), 4)
    # The step after the held one has the other sequence's token and the new prompt.
    assert len(bench.steps[held]) == 1 + 8
    assert [token async for token in streams[0]] == []
    rest = await collect(streams[1])
    assert len(rest) == LONG - 1
    assert bench.engine.load().kv_cache_used == 0


async def test_a_dropped_stream_frees_its_place(build: Build) -> None:
    bench = build(max_running=1)
    streams = await bench.occupy(1)
    waiting = bench.engine.generate(request(prompt_of(8), 1))
    held = len(bench.steps)
    streams.clear()
    gc.collect()
    await asyncio.sleep(0)
    bench.release()
    await collect(waiting)
    assert bench.steps[held] == prompt_of(8)


async def test_who_leaves_the_queue_never_gets_a_place(build: Build) -> None:
    bench = build(max_running=1)
    [running] = await bench.occupy(1)
    first, second = (bench.engine.generate(request([i, i], 1)) for i in (90, 91))
    await first.aclose()
    bench.release()
    await running.aclose()
    assert len(await collect(second)) == 1
    assert [90, 90] not in bench.steps
    assert [91, 91] in bench.steps


async def test_closing_a_stream_that_has_ended_does_nothing(build: Build) -> None:
    bench = build(max_running=1)
    stream = bench.engine.generate(request([1], 2))
    await collect(stream)
    await stream.aclose()
    unread = bench.engine.generate(request([1], 1))
    assert len(await generate(bench, request([2], 2))) == 2
    await unread.aclose()
    assert await collect(stream) == []
    assert len(await generate(bench, request([1], 2))) == 2


async def test_the_engine_says_how_busy_it_is(build: Build) -> None:
    bench = build(max_running=2, max_tokens=PAGE_TOKENS + 40)
    idle = bench.engine.load()
    assert (idle.running, idle.waiting, idle.kv_cache_used) == (0, 0, 0)
    # Room for three sequences of two pages: 2 layers, keys and values, 2 heads of 8 float32; and
    # two pages for the library's padding.
    assert idle.kv_cache_bytes == (3 * 2 + 2) * PAGE_TOKENS * 2 * 2 * 2 * 8 * 4
    streams = [bench.engine.generate(request(prompt_of(n), 30)) for n in (5, PAGE_TOKENS + 5)]
    for stream in streams:
        await anext(stream)
    bench.hold()
    await bench.until_held()
    streams += [bench.engine.generate(request([i], 1)) for i in range(3)]
    load = bench.engine.load()
    assert (load.running, load.waiting) == (2, 3)
    assert load.kv_cache_used == pytest.approx((1 + 2) / 6)
    for stream in streams:
        await stream.aclose()
    after = bench.engine.load()
    assert (after.running, after.waiting, after.kv_cache_used) == (0, 0, 0)


async def test_the_tokens_of_a_step_arrive_together(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = build(max_running=4)
    loop = asyncio.get_running_loop()
    main, calls = threading.current_thread(), []
    call_soon = loop.call_soon_threadsafe

    def count(callback: Callable[..., object], *args: Any) -> object:
        if threading.current_thread() is not main:
            calls.append(len(args[0]))
        return call_soon(callback, *args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", count)
    asked = [request([i], 5 + i) for i in range(6)]
    await asyncio.gather(*[generate(bench, one) for one in asked])
    assert len(calls) == len(bench.steps)
    assert sum(calls) == sum(one.max_new_tokens for one in asked)


async def test_the_size_of_each_step_is_reported(build: Build) -> None:
    bench = build(max_running=4)
    sizes: list[int] = []
    bench.engine.observe_steps(sizes.append)
    asked = [request([i], 5 + i) for i in range(6)]
    await asyncio.gather(*[generate(bench, one) for one in asked])
    assert len(sizes) == len(bench.steps)
    assert sum(sizes) == sum(one.max_new_tokens for one in asked)
    await generate(bench, replace(asked[0], background=True))
    assert len(sizes) < len(bench.steps)
    assert sum(sizes) == sum(one.max_new_tokens for one in asked)


async def test_what_the_engine_says_of_itself(build: Build, checkpoint: Checkpoint) -> None:
    bench = build()
    assert bench.engine.device == "cpu"
    footprint = bench.engine.footprint()
    assert footprint.weights_bytes == weights_bytes(bench.model)
    assert footprint.peak_bytes >= footprint.resident_bytes > 0
    assert bench.engine.can_score


async def test_a_failed_step_ends_the_engine(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    bench = build(max_running=2)
    streams = await bench.occupy(2)
    streams.append(bench.engine.generate(request([30], 2)))
    bench.failure = ValueError("a kernel is broken")
    bench.engine.check_health()
    bench.release()
    for stream in streams:
        with pytest.raises(InternalError, match="see the log"):
            await collect(stream)
        assert await collect(stream) == []
    assert "a kernel is broken" in caplog.text
    with pytest.raises(RuntimeError, match="has ended"):
        bench.engine.check_health()
    with pytest.raises(NotReady, match="has ended"):
        bench.engine.generate(request([1], 2))
    assert bench.engine.load().running == bench.engine.load().waiting == 0


async def test_a_step_that_does_not_end_is_stuck(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = build(stuck_after_s=1_000.0)
    [stream] = await bench.occupy(1)
    bench.engine.check_health()
    later = SimpleNamespace(perf_counter=lambda: time.perf_counter() + 2_000)
    for module in (paged_generator, paged_steps):
        monkeypatch.setattr(module, "time", later)
    with pytest.raises(RuntimeError, match="more than 1000 s"):
        bench.engine.check_health()
    bench.hold()
    await bench.until_held()
    # A sequence may take as long as it likes: this step has only just begun.
    bench.engine.check_health()
    bench.release()
    assert len(await collect(stream)) == LONG - 1


async def test_an_engine_without_work_is_not_stuck(build: Build) -> None:
    bench = build(stuck_after_s=0.0)
    bench.engine.check_health()
    await generate(bench, request([1], 2))
    bench.engine.check_health()


@pytest.mark.parametrize("is_answered_before", [True, False])
async def test_a_model_that_gives_nan_for_everything_is_broken(
    build: Build, reference: LlamaForCausalLM, is_answered_before: bool
) -> None:
    bench = build(max_running=1)
    if is_answered_before:
        await generate(bench, request([3], 2))
    head = bench.model.get_submodule("lm_head")
    for poison in (math.nan, math.inf):
        for temperature in (0.0, 1.0):
            hook = head.register_forward_hook(lambda *a, p=poison: a[-1].index_fill(-1, SOME, p))
            with pytest.raises(InternalError, match="fails on every prompt"):
                await generate(bench, request([1], 9, temperature=temperature))
            hook.remove()
            with pytest.raises(RuntimeError, match="NaN or infinite"):
                bench.engine.check_health()
    assert await generate(bench, request([2], 5)) == greedy(reference, [2], 5)
    bench.engine.check_health()
    assert bench.engine.load().running == 0


async def test_nan_of_one_sequence_is_its_own(build: Build, reference: LlamaForCausalLM) -> None:
    bench = build(max_running=2)
    good, others = request([2], 5), {*greedy(reference, [2], 5), *greedy(reference, [3], 2)}
    await generate(bench, request([3], 2))
    prompt, first = next(
        ([2, token, 4], first)
        for token in range(5, VOCABULARY)
        if (first := greedy(reference, [2, token, 4], 1)[0]) not in others
    )

    def poison(module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        is_bad = logits.argmax(-1, keepdim=True) == first
        return logits.masked_fill(is_bad, math.nan)

    hook = bench.model.get_submodule("lm_head").register_forward_hook(poison)
    for _ in range(3):
        found = await asyncio.gather(
            generate(bench, request(prompt, 5)), generate(bench, good), return_exceptions=True
        )
        assert isinstance(found[0], InputFails)
        assert found[1] == greedy(reference, [2], 5)
        bench.engine.check_health()
    hook.remove()
    assert bench.engine.load().running == bench.engine.load().waiting == 0


POISON = 50


def poison(bench: Bench) -> None:
    """Make a token's row of the embeddings NaN: attention carries it to whoever is read with it."""
    with torch.no_grad():
        bench.model.get_parameter("model.embed_tokens.weight")[POISON] = math.nan


async def test_nan_in_the_cache_stays_with_its_sequence(
    build: Build, reference: LlamaForCausalLM
) -> None:
    bench = build(max_running=1)
    await generate(bench, request([3], 2))
    poison(bench)
    for _ in range(2 * bench.engine._num_pages):  # so that each is used again
        with pytest.raises(InputFails):
            await generate(bench, request([2, POISON, 4], 5))
        bench.engine.check_health()
        assert await generate(bench, request([2], 5)) == greedy(reference, [2], 5)


async def test_nan_fails_nobody_who_shares_its_steps(
    build: Build, reference: LlamaForCausalLM
) -> None:
    """Nor does it spoil the tests: so many at once would have the replica replaced."""
    bench = build(max_running=3)
    await generate(bench, request([3], 2))
    poison(bench)
    prompts = [[2], [2, POISON], [4, 5], [POISON], [6], [POISON, 7, 8]]
    found = await asyncio.gather(
        *(generate(bench, request(prompt, 5)) for prompt in prompts), return_exceptions=True
    )
    for prompt, answer in zip(prompts, found, strict=True):
        if POISON in prompt:
            assert isinstance(answer, InputFails)
        else:
            assert answer == greedy(reference, prompt, 5)
    bench.engine.check_health()
    assert bench.engine.load().running == bench.engine.load().waiting == 0


async def test_who_begins_again_goes_on_where_it_was(
    build: Build, reference: LlamaForCausalLM
) -> None:
    bench = build(max_running=2)
    asked = request([2], 12, temperature=1.0, seed=7, frequency_penalty=1.0, logprobs=2)
    tokens, logprobs = expected(reference, asked)
    assert POISON not in tokens
    await generate(bench, request([3], 2))
    poison(bench)
    stream = bench.engine.generate(asked)
    found = [await anext(stream)]
    bench.hold()
    await bench.until_held()
    failing = asyncio.create_task(generate(bench, request([POISON], 2)))
    await asyncio.sleep(0)
    bench.release()
    with pytest.raises(InputFails):
        await failing
    found += await collect(stream)
    assert bench.steps.count([2]) == 2  # it did begin again
    assert [generated.token for generated in found] == tokens
    for generated, wanted in zip(found, logprobs, strict=True):
        assert wanted is not None
        assert generated.logprob is not None
        assert generated.logprob.logprob == pytest.approx(wanted.logprob, abs=1e-4)
    bench.engine.check_health()


SOME = torch.tensor([VOCABULARY // 2])


async def test_closing_ends_what_has_not_ended(build: Build) -> None:
    bench = build(max_running=1)
    streams = await bench.occupy(1)
    streams.append(bench.engine.generate(request([30], 2)))
    closing = asyncio.create_task(asyncio.to_thread(bench.engine.close))
    await asyncio.sleep(0)
    bench.release()
    await closing
    for stream in streams:
        with pytest.raises(NotReady, match="closed"):
            await collect(stream)
    with pytest.raises(NotReady):
        bench.engine.generate(request([1], 2))
    bench.engine.check_health()
    bench.engine.close()


async def test_no_thread_keeps_the_process_alive(build: Build) -> None:
    before = set(threading.enumerate())
    bench = build()
    [thread] = set(threading.enumerate()) - before
    assert thread.daemon
    bench.engine.close()
    assert not thread.is_alive()


def test_a_cache_that_does_not_fit_is_a_mistake_in_the_configuration(
    checkpoint: Checkpoint,
) -> None:
    with pytest.raises(ConfigError, match="lower max_running_requests or max_tokens"):
        Bench(checkpoint, max_running=256, max_tokens=10**9)


def test_a_model_that_the_library_does_not_know_is_told(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)

    model: Any = model_of(Checkpoint(tmp_path))
    model.config.layer_types = ["chunked_attention"]
    with pytest.raises(ConfigError, match="cannot batch this model continuously"):
        PagedGenerator(model, asked_for(max_tokens=8))


async def test_a_model_in_half_precision_is_served_in_it(checkpoint: Checkpoint) -> None:
    engine = PagedGenerator(model_of(checkpoint).bfloat16(), asked_for())
    assert len(await collect(engine.generate(request([1, 2], 5)))) == 5
    engine.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flash_attention_is_for_half_precision(
    checkpoint: Checkpoint, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_cache, "is_flash_attn_2_available", lambda: True)
    engine = PagedGenerator(model_of(checkpoint).to(dtype), asked_for())
    config = engine._manager.continuous_batching_config
    assert config.auto_switch_to_flash == (dtype is torch.bfloat16)
    engine.close()


def test_padding_and_cancelled_sequences_are_rows_that_nobody_reads() -> None:
    steps = Steps({}, TokenChooser(3, VOCABULARY, torch.device("cpu")), is_captured=True)
    storage = torch.zeros(steps.tensors_required, 6, dtype=torch.int32)
    cancelled = FutureRequestState(RequestState("gone", [1, 2]), True, {}, 2)
    unfinished = FutureRequestState(RequestState("gone too", [1, 2]), False, {}, 1)
    steps.prepare_tensor_args([cancelled, unfinished], storage)
    defaults = torch.zeros(steps.tensors_required, 1, dtype=torch.int32)
    steps.fill_defaults(defaults)
    for row in (storage[:, :3], defaults):
        assert set(row[0].tolist()) == {3}
        assert not row[NUM_INTEGERS:].any()
