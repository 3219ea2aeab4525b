"""The engine's thread and the event loop: who waits for whom, and what ends when."""

import asyncio
import gc
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from serving.cores import UnsharedCores
from serving.errors import (
    ConfigError,
    InputFails,
    InternalError,
    InvalidField,
    NotReady,
    QueueFull,
)
from serving.generator import SlotGenerator
from serving.generator.token_stream import TokenStream
from serving.seams import GeneratorEngine, TokenRequest
from tests.unit.fakes.rust import rust_panic
from tests.unit.fakes.waiting import MAX_WAIT_S
from tests.unit.generator import reference
from tests.unit.generator.fake_decoder import POISON, FakeDecoder
from tests.unit.generator.leaving import WAYS_TO_LEAVE
from tests.unit.generator.reference import request

LONG = 40
"""New tokens of a sequence that shall not end before the test ends it."""


class Bench:
    """An engine over a decoder that a test can hold."""

    def __init__(self, num_slots: int = 2, max_waiting: int = 100, **options: Any) -> None:
        self.decoder = FakeDecoder(num_slots)
        self.engine = SlotGenerator(lambda: self.decoder, UnsharedCores(2), max_waiting, **options)

    async def occupy(self, num_sequences: int = 1) -> list[TokenStream]:
        """Start sequences, and hold the first step in which all of them decode."""
        self.decoder.hold(lambda step: True)
        streams = [self.engine.generate(request([i], LONG)) for i in range(num_sequences)]
        assert await asyncio.to_thread(self.decoder.held.wait, MAX_WAIT_S)
        self.decoder.hold(lambda step: [s.start > 0 for s in step] == [True] * num_sequences)
        assert await asyncio.to_thread(self.decoder.held.wait, MAX_WAIT_S)
        return streams

    def release(self) -> None:
        """Let the held step and all later ones run."""
        self.decoder.release()


@pytest.fixture
def build() -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def build_bench(num_slots: int = 2, max_waiting: int = 100, **options: Any) -> Bench:
        benches.append(Bench(num_slots, max_waiting, **options))
        return benches[-1]

    yield build_bench
    for bench in benches:
        bench.release()
        bench.engine.close()


async def collect(stream: TokenStream) -> list[int]:
    async with asyncio.timeout(MAX_WAIT_S):
        return [token.token async for token in stream]


async def generate(bench: Bench, asked: TokenRequest) -> list[int]:
    async with aclosing(bench.engine.generate(asked)) as stream:
        return await collect(stream)


async def test_a_sequence_is_generated(build: Callable[..., Bench]) -> None:
    bench = build()
    engine: GeneratorEngine = bench.engine
    tokens = [token async for token in engine.generate(request([1, 2, 3], 6))]
    assert [token.token for token in tokens] == reference.continuation(request([1, 2, 3], 6))
    assert [token.finish for token in tokens] == [None] * 5 + ["length"]
    assert (engine.max_tokens, engine.device) == (64, "cpu")
    assert engine.footprint() == bench.decoder.footprint()


@pytest.mark.parametrize("seed", range(12))
async def test_concurrent_sequences_get_their_own_tokens(
    build: Callable[..., Bench], seed: int
) -> None:
    chance = random.Random(seed)
    bench = build(chance.randint(1, 4), chunk_tokens=chance.randint(1, 9))

    async def client() -> None:
        for _ in range(4):
            shared = range(chance.randint(0, 25))
            prompt = [*shared, *chance.choices(range(40), k=chance.randint(1, 9))]
            temperature = chance.choice([0.0, 1.0])
            asked = request(
                prompt, chance.randint(1, 12), temperature=temperature, seed=chance.randrange(99)
            )
            expected = reference.continuation(asked)
            if chance.random() < 0.3:
                stream = bench.engine.generate(asked)
                num_taken = chance.randint(0, len(expected) - 1)
                taken = [(await anext(stream)).token for _ in range(num_taken)]
                await stream.aclose()
                assert taken == expected[:num_taken]
            else:
                assert await generate(bench, asked) == expected

    await asyncio.gather(*[client() for _ in range(6)])
    assert bench.engine.load().running == bench.engine.load().waiting == 0


async def test_tokens_wait_for_a_slow_consumer(build: Callable[..., Bench]) -> None:
    bench = build()
    asked = request([1], 20)
    slow = bench.engine.generate(asked)
    assert await generate(bench, request([2], 30)) == reference.continuation(request([2], 30))
    assert await collect(slow) == reference.continuation(asked)


async def test_what_can_never_fit_is_refused_at_once(build: Callable[..., Bench]) -> None:
    bench = build()
    with pytest.raises(InvalidField) as caught:
        bench.engine.generate(request(range(40), 25))
    assert caught.value.param == "max_tokens"
    assert all(number in caught.value.message for number in ("40", "25", "65", "64"))
    assert bench.engine.load().waiting == 0
    assert len(await generate(bench, request(range(40), 24))) == 24


async def test_a_full_queue_refuses_and_says_when_to_retry(build: Callable[..., Bench]) -> None:
    bench = build(num_slots=2, max_waiting=3)
    running = await bench.occupy(2)
    waiting = [bench.engine.generate(request([7], 1)) for _ in range(3)]
    with pytest.raises(QueueFull) as caught:
        bench.engine.generate(request([8], 1))
    assert caught.value.retry_after_s == 1
    await waiting[1].aclose()
    bench.engine.generate(request([9], 1))
    bench.release()
    assert await collect(waiting[2]) == reference.continuation(request([7], 1))
    for stream in running:
        await stream.aclose()


async def test_background_sequences_take_no_place_away_from_others(
    build: Callable[..., Bench],
) -> None:
    bench = build(num_slots=2, max_waiting=1)
    running = await bench.occupy(2)
    behind = [bench.engine.generate(replace(request([7], 1), background=True)) for _ in range(3)]
    assert bench.engine.load().background == 3
    waiting = bench.engine.generate(request([7], 1))
    with pytest.raises(QueueFull, match="1 sequences wait already"):
        bench.engine.generate(request([8], 1))
    bench.release()
    for stream in (*running, *behind, waiting):
        await collect(stream)


async def test_sequences_that_come_and_go_during_a_step_do_not_pile_up(
    build: Callable[..., Bench],
) -> None:
    bench = build(num_slots=2, max_waiting=3)
    [running] = await bench.occupy()

    async def come_and_go() -> None:
        for _ in range(100):
            await bench.engine.generate(request([7], 1)).aclose()

    with pytest.raises(QueueFull, match="came and went"):
        await come_and_go()
    bench.release()
    await collect(running)
    assert len(await generate(bench, request([9], 3))) == 3


async def test_free_slots_are_no_queue(build: Callable[..., Bench]) -> None:
    bench = build(num_slots=3, max_waiting=0)
    asked = [request([i], 3) for i in range(3)]
    streams = [bench.engine.generate(one) for one in asked]
    with pytest.raises(QueueFull):
        bench.engine.generate(request([9], 3))
    for stream, one in zip(streams, asked, strict=True):
        assert await collect(stream) == reference.continuation(one)
    assert len(await generate(bench, request([9], 3))) == 3


@pytest.mark.parametrize("leave", WAYS_TO_LEAVE)
async def test_a_consumer_that_leaves_frees_its_slot_before_the_next_step(
    build: Callable[..., Bench], leave: Callable[[TokenStream], Awaitable[object]]
) -> None:
    bench = build(num_slots=2)
    streams = await bench.occupy(2)
    waiting = bench.engine.generate(request([30], 4))
    held = len(bench.decoder.steps) - 1
    await leave(streams[0])
    bench.release()
    assert await collect(waiting) == reference.continuation(request([30], 4))
    assert [segment.slot for segment in bench.decoder.steps[held]] == [0, 1]
    following = bench.decoder.steps[held + 1]
    assert [(segment.slot, segment.start) for segment in following if segment.slot == 0] == [(0, 0)]
    assert [token async for token in streams[0]] == []
    await streams[1].aclose()


async def test_a_dropped_stream_frees_its_slot_before_the_next_step(
    build: Callable[..., Bench],
) -> None:
    bench = build(num_slots=1)
    streams = await bench.occupy()
    waiting = bench.engine.generate(request([30], 1))
    held = len(bench.decoder.steps) - 1
    streams.clear()
    gc.collect()
    bench.release()
    await collect(waiting)
    assert [segment.start for segment in bench.decoder.steps[held + 1]] == [0]


async def test_a_stream_that_nobody_ever_reads_ends_when_it_is_dropped(
    build: Callable[..., Bench],
) -> None:
    bench = build(num_slots=1)
    bench.engine.generate(request([1], LONG))
    gc.collect()
    asked = request([2], 3)
    assert await generate(bench, asked) == reference.continuation(asked)
    assert bench.engine.load().running == 0


async def test_who_leaves_the_queue_never_gets_a_slot(build: Callable[..., Bench]) -> None:
    bench = build(num_slots=1)
    [running] = await bench.occupy()
    first, second = (bench.engine.generate(request([i, i], 1)) for i in (30, 31))
    await first.aclose()
    bench.release()
    await running.aclose()
    assert await collect(second) == reference.continuation(request([31, 31], 1))
    assert not any(list(s.token_ids) == [30, 30] for step in bench.decoder.steps for s in step)


async def test_closing_a_stream_that_has_ended_does_nothing(build: Callable[..., Bench]) -> None:
    bench = build()
    stream = bench.engine.generate(request([1], 2))
    await collect(stream)
    await stream.aclose()
    await stream.aclose()
    assert await collect(stream) == []
    assert len(await generate(bench, request([1], 2))) == 2


async def test_a_sequence_that_fails_is_told_and_the_engine_goes_on(
    build: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = build(num_slots=2)
    await generate(bench, request([1], 2))
    [running] = await bench.occupy()
    asked = request([30], 4)
    waiting = bench.engine.generate(asked)
    bench.decoder.failures = [ValueError("a kernel is broken")]
    bench.release()
    with pytest.raises(InputFails, match="on this sequence"):
        await collect(running)
    assert await collect(running) == []
    assert "a kernel is broken" in caplog.text
    assert await collect(waiting) == reference.continuation(asked)
    bench.engine.check_health()


async def test_what_the_decoder_had_answered_tells_whether_it_is_broken(
    build: Callable[..., Bench],
) -> None:
    bench = build()
    await generate(bench, request([1], 3))
    for _ in range(10):
        bench.decoder.failures = [ValueError("a kernel is broken")]
        with pytest.raises(InputFails):
            await generate(bench, request([1], 3))
        bench.engine.check_health()
    bench.decoder.failures = [ValueError("a kernel is broken")] * 2
    with pytest.raises(InternalError):
        await generate(bench, request([1], 3))
    with pytest.raises(RuntimeError, match="ValueError: a kernel is broken"):
        bench.engine.check_health()
    await generate(bench, request([1], 3))
    bench.engine.check_health()


async def test_a_step_that_does_not_end_is_stuck(build: Callable[..., Bench]) -> None:
    bench = build(stuck_after_s=0.0)
    bench.engine.check_health()
    [stream] = await bench.occupy()
    with pytest.raises(RuntimeError, match="more than 0 s"):
        bench.engine.check_health()
    bench.release()
    await collect(stream)
    bench.engine.check_health()


async def test_a_step_within_its_time_is_not_stuck(build: Callable[..., Bench]) -> None:
    bench = build(stuck_after_s=1_000.0)
    [stream] = await bench.occupy()
    bench.engine.check_health()
    bench.release()
    await stream.aclose()


async def test_nan_ends_one_sequence(build: Callable[..., Bench]) -> None:
    bench = build()
    await generate(bench, request([1], 1))
    asked = request([1], 20)
    results = await asyncio.gather(
        generate(bench, request([2, POISON], 20)), generate(bench, asked), return_exceptions=True
    )
    assert isinstance(results[0], InputFails)
    assert results[1] == reference.continuation(asked)
    bench.engine.check_health()


async def test_the_engine_says_how_busy_it_is(build: Callable[..., Bench]) -> None:
    bench = build(num_slots=2)
    idle = bench.engine.load()
    assert (idle.running, idle.waiting, idle.kv_cache_used) == (0, 0, 0)
    assert idle.kv_cache_bytes == bench.decoder.kv_cache_bytes
    streams = await bench.occupy(2)
    streams += [bench.engine.generate(request([i], 1)) for i in range(3)]
    load = bench.engine.load()
    assert (load.running, load.waiting) == (2, 3)
    held = sum(segment.start for segment in bench.decoder.steps[-1])
    assert load.kv_cache_used == held / (2 * 64) > 0
    for stream in streams:
        await stream.aclose()
    assert (bench.engine.load().running, bench.engine.load().waiting) == (0, 0)


async def test_one_thread_loads_and_steps(build: Callable[..., Bench]) -> None:
    threads: list[threading.Thread] = []

    def make_decoder() -> FakeDecoder:
        threads.append(threading.current_thread())
        return FakeDecoder()

    engine = await asyncio.to_thread(SlotGenerator, make_decoder, UnsharedCores(2), 4)
    asked = request([1], 5)
    assert await collect(engine.generate(asked)) == reference.continuation(asked)
    engine.close()
    assert threads[0] is not threading.current_thread()
    assert isinstance(engine._decoder, FakeDecoder)
    assert engine._decoder.threads == set(threads)
    assert not threads[0].is_alive()


def test_what_the_decoder_s_maker_raises_the_engine_raises() -> None:
    def make_decoder() -> FakeDecoder:
        raise ConfigError("this machine has no such instructions")

    with pytest.raises(ConfigError, match="no such instructions"):
        SlotGenerator(make_decoder, UnsharedCores(2), 4)


async def test_the_tokens_of_a_step_arrive_together(
    build: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = build(num_slots=4)
    loop = asyncio.get_running_loop()
    calls: list[int] = []
    call_soon = loop.call_soon_threadsafe

    def count(callback: Callable[..., object], *args: Any) -> object:
        if threading.current_thread().name == "generate":
            calls.append(len(args[0]))
        return call_soon(callback, *args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", count)
    asked = [request([i], 5 + i) for i in range(6)]
    await asyncio.gather(*[generate(bench, one) for one in asked])
    assert len(calls) == len(bench.decoder.steps)
    assert sum(calls) == sum(one.max_new_tokens for one in asked)


async def test_the_size_of_each_step_is_reported_in_the_event_loop(
    build: Callable[..., Bench],
) -> None:
    bench = build(num_slots=3, chunk_tokens=4, idle_chunk_tokens=4)
    sizes: list[int] = []

    def note(size: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        sizes.append(size)

    bench.engine.observe_steps(note)
    await generate(bench, request(range(9), 3))
    assert sizes == [1] * 5, "two steps of the prompt gave no token"
    await asyncio.gather(*[generate(bench, request([i], 5 + i)) for i in range(5)])
    assert sizes == [len(step) for step in bench.decoder.steps]
    assert max(sizes) > 1
    before = len(sizes)
    await generate(bench, replace(request([1], 3), background=True))
    assert len(sizes) == before


async def test_closing_ends_what_has_not_ended(
    build: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = build(num_slots=1)
    streams = await bench.occupy()
    streams.append(bench.engine.generate(request([30], 2)))
    join = bench.engine._worker.join

    def release_and_join(timeout: float) -> None:
        streams.append(bench.engine.generate(request([31], 2)))
        bench.release()
        join(timeout)

    with monkeypatch.context() as patch:
        patch.setattr(bench.engine._worker, "join", release_and_join)
        bench.engine.close()
    for stream in streams:
        with pytest.raises(NotReady, match="closed"):
            await collect(stream)
    with pytest.raises(NotReady):
        bench.engine.generate(request([1], 2))
    bench.engine.check_health()
    bench.engine.close()


@pytest.mark.parametrize("end", [AssertionError("a bug"), rust_panic("a library's bug")])
@pytest.mark.parametrize(
    "keeps_cores",
    [
        False,
        pytest.param(
            True,
            marks=pytest.mark.filterwarnings(
                "ignore::pytest.PytestUnhandledThreadExceptionWarning"
            ),
        ),
    ],
)
async def test_a_thread_that_ends_by_itself_is_told(
    build: Callable[..., Bench],
    monkeypatch: pytest.MonkeyPatch,
    end: BaseException,
    keeps_cores: bool,
) -> None:
    bench = build(num_slots=1)
    streams = await bench.occupy()
    streams.append(bench.engine.generate(request([30], 2)))

    def broken(*_: object) -> None:
        raise end

    if keeps_cores:
        monkeypatch.setattr(bench.engine._cores, "give_back", broken)
    monkeypatch.setattr(bench.engine._stepper._schedule, "plan", broken)
    bench.release()
    for stream in streams:
        with pytest.raises(InternalError):
            await collect(stream)
    bench.engine._worker.join(MAX_WAIT_S)
    with pytest.raises(RuntimeError, match="has ended"):
        bench.engine.check_health()
    with pytest.raises(NotReady):
        bench.engine.generate(request([1], 2))


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_closed_event_loop_ends_the_thread() -> None:
    bench = Bench(num_slots=1)

    async def leave_early() -> TokenStream:
        [stream] = await bench.occupy()
        return stream

    stream = asyncio.run(leave_early())
    bench.release()
    bench.engine._worker.join(MAX_WAIT_S)
    assert not bench.engine._worker.is_alive()
    del stream
