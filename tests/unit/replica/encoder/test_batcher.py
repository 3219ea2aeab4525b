"""What arrives during a pass makes the next one; nobody gets another's rows."""

import asyncio
import gc
import random
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.cores import UnsharedCores
from serving.errors import InputFails, InternalError, InvalidField, QueueFull
from serving.replica.encoder.batcher import Batcher, BatchResult
from serving.seams import Arrays, Item
from tests.unit.fakes.encoder import FakeEngine, row_of
from tests.unit.fakes.waiting import MAX_WAIT_S

SOLO = [[9]]
"""The request that occupies the engine while others arrive."""


class Ids(list[int]):
    """An item of token ids; it can be watched."""

    @property
    def cost(self) -> int:
        return len(self)


PROVEN = Ids([8])


def collate(items: Sequence[Item]) -> Arrays:
    shape = len(items), max(item.cost for item in items)
    ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, item in enumerate(items):
        assert isinstance(item, Ids)
        ids[row, : len(item)], mask[row, : len(item)] = item, 1
    return {"input_ids": ids, "attention_mask": mask}


async def run(
    batcher: Batcher, token_ids: list[list[int]], background: bool = False
) -> BatchResult:
    with batcher.place(background) as place:
        return await batcher.run(place, list(map(Ids, token_ids)))


class Bench:
    """A batcher over an engine whose passes wait at a gate."""

    def __init__(self, max_batch_tokens: int = 64, max_queued_requests: int = 100) -> None:
        self.engine = FakeEngine()
        self.passes: list[tuple[int, int]] = []
        self.batcher = Batcher(
            self.engine,
            collate,
            ThreadPoolExecutor(1),
            UnsharedCores(2),
            max_batch_tokens,
            max_queued_requests,
            lambda texts, tokens: self.passes.append((texts, tokens)),
            PROVEN,
        )

    def send(
        self, token_ids: list[list[int]], background: bool = False
    ) -> asyncio.Task[BatchResult]:
        return asyncio.create_task(run(self.batcher, token_ids, background))

    async def occupy(self) -> asyncio.Task[BatchResult]:
        """Start a pass, and hold it until ``release``."""
        self.engine.gate.clear()
        occupant = self.send(SOLO)
        assert await asyncio.to_thread(self.engine.entered.wait, MAX_WAIT_S)
        return occupant

    async def queue(self, *requests: list[list[int]]) -> list[asyncio.Task[BatchResult]]:
        """Send requests and return when all of them wait."""
        tasks = [self.send(request) for request in requests]
        await asyncio.sleep(0)
        return tasks

    def release(self) -> None:
        self.engine.gate.set()


def expect_rows(result: BatchResult, token_ids: list[list[int]]) -> None:
    assert result.rows.tolist() == [row_of(ids, "fp32").tolist() for ids in token_ids]


async def test_a_request_alone_is_answered_at_once() -> None:
    bench = Bench()
    result = await bench.send([[1, 2, 3]])
    expect_rows(result, [[1, 2, 3]])
    assert bench.passes == [(1, 3)]


async def test_what_arrives_during_a_pass_makes_the_next_together() -> None:
    bench = Bench()
    occupant = await bench.occupy()
    requests = [[[1, 2]], [[3, 4], [5, 6]], [[7, 8]]]
    tasks = await bench.queue(*requests)
    assert bench.batcher.num_queued == 3
    bench.release()
    for task, request in zip(tasks, requests, strict=True):
        expect_rows(await task, request)
    expect_rows(await occupant, SOLO)
    assert bench.passes == [(1, 1), (4, 8)]
    assert bench.batcher.num_queued == 0


async def test_a_pass_holds_no_more_tokens_than_it_may() -> None:
    bench = Bench(max_batch_tokens=24)
    await bench.occupy()
    tasks = await bench.queue(*[[[number] * 8] for number in range(8)])
    bench.release()
    await asyncio.gather(*tasks)
    assert bench.passes[1:] == [(3, 24), (3, 24), (2, 16)]


async def test_texts_wait_in_the_order_in_which_they_came() -> None:
    bench = Bench(max_batch_tokens=16)
    await bench.occupy()
    tasks = await bench.queue([[1] * 8], [[2] * 16], [[3] * 8], [[4] * 8])
    bench.release()
    await asyncio.gather(*tasks)
    assert bench.engine.batches[1:] == [[[1] * 8], [[2] * 16], [[3] * 8, [4] * 8]]


async def test_a_text_longer_than_a_pass_goes_alone() -> None:
    bench = Bench(max_batch_tokens=4)
    await bench.occupy()
    [long, short] = await bench.queue([[1] * 9], [[2]])
    bench.release()
    expect_rows(await long, [[1] * 9])
    expect_rows(await short, [[2]])
    assert bench.passes[1:] == [(1, 9), (1, 1)]


async def test_a_request_larger_than_a_pass_is_answered_whole_and_in_order() -> None:
    bench = Bench(max_batch_tokens=8)
    token_ids = [[number] * (1 + number % 5) for number in range(40)]
    expect_rows(await bench.send(token_ids), token_ids)
    assert len(bench.passes) > 1
    assert sum(texts for texts, _ in bench.passes) == 40
    assert sum(tokens for _, tokens in bench.passes) == sum(map(len, token_ids))


async def test_a_full_queue_refuses_and_says_when_to_retry() -> None:
    bench = Bench(max_queued_requests=2)
    await bench.occupy()
    waiting = await bench.queue([[1]], [[2]])
    with pytest.raises(QueueFull) as caught:
        await bench.send([[3]])
    assert caught.value.retry_after_s == 1
    bench.release()
    await asyncio.gather(*waiting)
    expect_rows(await bench.send([[3]]), [[3]])


@pytest.mark.parametrize("background", [False, True])
async def test_background_requests_take_no_place_away_from_others(background: bool) -> None:
    bench = Bench(max_queued_requests=1)
    await bench.occupy()
    first = bench.send([[1]], background)
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="1 requests wait already"):
        await bench.send([[2]], background)
    other = bench.send([[3]], not background)
    await asyncio.sleep(0)
    bench.release()
    expect_rows(await first, [[1]])
    expect_rows(await other, [[3]])


async def test_the_request_in_its_pass_does_not_fill_the_queue() -> None:
    bench = Bench(max_queued_requests=1)
    await bench.occupy()
    [waiting] = await bench.queue([[1]])
    bench.release()
    expect_rows(await waiting, [[1]])


async def test_a_cancelled_request_is_dropped_before_its_pass_and_frees_its_place() -> None:
    bench = Bench(max_queued_requests=2)
    await bench.occupy()
    [cancelled, kept] = await bench.queue([[1]], [[2]])
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert bench.batcher.num_queued == 1
    [late] = await bench.queue([[3]])
    bench.release()
    expect_rows(await kept, [[2]])
    expect_rows(await late, [[3]])
    assert bench.engine.batches == [SOLO, [[2], [3]]]


async def test_a_cancelled_request_leaves_nothing_behind_while_a_pass_lasts() -> None:
    bench = Bench()
    occupant = await bench.occupy()
    kept = [Ids([1]), Ids([2])]
    watched = [weakref.ref(ids) for ids in kept]

    async def ask(items: list[Ids]) -> None:
        with bench.batcher.place() as place:
            await bench.batcher.run(place, items)

    tasks = [asyncio.create_task(ask(kept))]
    del kept
    await asyncio.sleep(0)
    assert all(watch() is not None for watch in watched)
    tasks[0].cancel()
    await asyncio.wait(tasks)
    del tasks
    gc.collect()
    assert [watch() for watch in watched] == [None, None]
    bench.release()
    await occupant
    assert bench.engine.batches == [SOLO]


async def test_a_place_is_taken_before_there_are_tokens() -> None:
    bench = Bench(max_queued_requests=1)
    with bench.batcher.place() as place:
        assert bench.batcher.num_queued == 1
        with pytest.raises(QueueFull):
            await bench.send([[1]])
        expect_rows(await bench.batcher.run(place, [Ids([2])]), [[2]])
    with pytest.raises(InvalidField), bench.batcher.place():
        raise InvalidField("a text is too long")
    assert bench.batcher.num_queued == 0


async def test_a_cancelled_request_takes_no_room_in_a_pass() -> None:
    bench = Bench(max_batch_tokens=16)
    await bench.occupy()
    [cancelled, *kept] = await bench.queue([[1] * 8], [[2] * 8], [[3] * 8])
    cancelled.cancel()
    bench.release()
    await asyncio.gather(*kept)
    assert bench.engine.batches == [SOLO, [[2] * 8, [3] * 8]]


async def test_a_request_cancelled_during_its_pass_hurts_nobody() -> None:
    bench = Bench()
    occupant = await bench.occupy()
    [waiting] = await bench.queue([[1]])
    occupant.cancel()
    await asyncio.wait([occupant])
    bench.release()
    expect_rows(await waiting, [[1]])


async def test_the_rest_of_a_request_cancelled_between_its_passes_is_dropped() -> None:
    bench = Bench(max_batch_tokens=1)
    bench.engine.gate.clear()
    long = bench.send([[1], [2], [3]])
    assert await asyncio.to_thread(bench.engine.entered.wait, MAX_WAIT_S)
    long.cancel()
    await asyncio.wait([long])
    bench.release()
    expect_rows(await bench.send([[4]]), [[4]])
    assert bench.engine.batches == [[[1]], [[4]]]


BAD = 13
"""A token that the engine of these tests cannot take."""


def fail_on_bad(bench: Bench, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Have passes with a bad token fail, or give numbers that are none, for it or for all."""
    forward = bench.engine.forward

    def forward_unless_bad(inputs: Arrays) -> NDArray[np.float32]:
        rows = forward(inputs)
        is_bad = (inputs["input_ids"] == BAD).any(1)
        if is_bad.any() and how == "raises":
            raise IndexError("index out of range in self")
        rows[is_bad if how == "spoils itself" else is_bad.any() | is_bad] = np.nan
        return rows

    monkeypatch.setattr(bench.engine, "forward", forward_unless_bad)


@pytest.mark.parametrize("how", ["raises", "spoils itself", "spoils all"])
async def test_an_input_that_the_model_fails_on_is_the_only_one_without_an_answer(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    bench = Bench()
    fail_on_bad(bench, monkeypatch, how)
    await bench.occupy()
    good, bad, mixed, more = await bench.queue([[1]], [[BAD]], [[2], [3], [BAD]], [[4], [5]])
    bench.release()
    for task, ids in ((good, [[1]]), (more, [[4], [5]])):
        expect_rows(await task, ids)
    for task, index in ((bad, 0), (mixed, 2)):
        with pytest.raises(InputFails, match=rf"on input\[{index}\]") as caught:
            await task
        assert caught.value.status == 422
    bench.batcher.check_health()
    assert sum(texts for texts, _ in bench.passes) == 1 + 1 + 2 + 2


async def test_inputs_that_fail_never_get_the_replica_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    fail_on_bad(bench, monkeypatch, "raises")
    for _ in range(20):
        with pytest.raises(InputFails):
            await bench.send([[BAD]])
        bench.batcher.check_health()


@pytest.mark.parametrize("is_nan", [True, False])
async def test_an_engine_that_fails_on_what_it_had_answered_is_broken(
    monkeypatch: pytest.MonkeyPatch, is_nan: bool
) -> None:
    bench = Bench()
    await bench.occupy()
    waiting = await bench.queue([[1]], [[2], [3]])
    forward = bench.engine.forward

    def break_down(inputs: Arrays) -> NDArray[np.float32]:
        if not is_nan:
            raise RuntimeError("kernel")
        return np.full((len(inputs["input_ids"]), 8), np.nan, np.float32)

    monkeypatch.setattr(bench.engine, "forward", break_down)
    bench.release()
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(failure) for failure in failures] == [InternalError] * 2
    with pytest.raises(RuntimeError, match="NaN" if is_nan else "RuntimeError: kernel"):
        bench.batcher.check_health()
    monkeypatch.setattr(bench.engine, "forward", forward)
    expect_rows(await bench.send([[4]]), [[4]])
    bench.batcher.check_health()


async def test_after_one_of_its_inputs_failed_a_request_makes_no_more_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(max_batch_tokens=1)
    fail_on_bad(bench, monkeypatch, "raises")
    with pytest.raises(InputFails):
        await bench.send([[BAD], [2], [3]])
    expect_rows(await bench.send([[4]]), [[4]])
    assert bench.engine.batches == [[[BAD]], [PROVEN], [[4]]]


async def test_an_engine_that_answers_too_few_rows_fails_its_requests(monkeypatch) -> None:
    bench = Bench()
    monkeypatch.setattr(bench.engine, "forward", lambda batch: np.zeros((1, 8), np.float32))
    request = bench.send([[1], [2]])
    await asyncio.wait([request], timeout=MAX_WAIT_S)
    assert request.done()


@pytest.mark.parametrize("seed", range(20))
async def test_many_random_requests_each_get_their_own_rows(seed: int) -> None:
    rng = random.Random(seed)
    bench = Bench(max_batch_tokens=rng.choice([1, 7, 40, 400]), max_queued_requests=1000)

    async def ask() -> None:
        for _ in range(rng.randint(1, 4)):
            token_ids = [
                [rng.randrange(1000) for _ in range(rng.randint(1, 12))]
                for _ in range(rng.randint(1, 6))
            ]
            expect_rows(await bench.send(token_ids), token_ids)
            await asyncio.sleep(rng.choice([0, 0.0005]))

    await asyncio.gather(*(ask() for _ in range(25)))
    assert bench.batcher.num_queued == 0


PASS_S = 0.05


async def test_times_run_from_arrival_to_the_last_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(max_batch_tokens=4)
    forward = bench.engine.forward

    def take_a_while(inputs: Arrays) -> NDArray[np.float32]:
        time.sleep(PASS_S)
        return forward(inputs)

    monkeypatch.setattr(bench.engine, "forward", take_a_while)
    loop = asyncio.get_running_loop()
    occupant = await bench.occupy()
    started = loop.time()
    [waiting, long] = await bench.queue([[1]], [[2] * 3, [3] * 4])
    bench.release()
    results = [await occupant, await waiting, await long]
    elapsed = loop.time() - started
    assert all(result.queue >= 0 and result.forward > 0 for result in results)
    assert all(result.queue + result.forward <= elapsed for result in results[1:])
    # The long request took two passes, the other one.
    assert results[1].forward >= PASS_S
    assert results[2].forward >= 2 * PASS_S
    # Both waited for the occupant's pass, which did not wait for them.
    assert min(results[1].queue, results[2].queue) > 0


class HurriedCores(UnsharedCores):
    """Counts how often somebody was in a hurry."""

    num_hurries = 0

    def hurry(self) -> None:
        self.num_hurries += 1


async def test_who_is_waited_for_lets_no_background_pass_wait_for_others() -> None:
    cores = HurriedCores(1)
    worker, engine = ThreadPoolExecutor(1), FakeEngine()
    batcher = Batcher(engine, collate, worker, cores, 64, 8, lambda size, cost: None, PROVEN)
    await run(batcher, [[1]], background=True)
    assert cores.num_hurries == 0
    await run(batcher, [[1]])
    assert cores.num_hurries == 1


async def test_health_fails_while_a_pass_is_stuck() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    batcher = Batcher(
        engine,
        collate,
        ThreadPoolExecutor(1),
        UnsharedCores(1),
        8,
        8,
        lambda size, cost: None,
        PROVEN,
        stuck_after_s=0,
    )
    batcher.check_health()
    request = asyncio.create_task(run(batcher, [[1]]))
    await asyncio.to_thread(engine.entered.wait, 5)
    with pytest.raises(RuntimeError, match="a forward pass runs"):
        batcher.check_health()
    engine.gate.set()
    await request
    batcher.check_health()


async def test_a_pass_counts_only_what_a_client_waits_for() -> None:
    bench = Bench()
    occupant = await bench.occupy()
    background = bench.send([[1, 2], [3, 4]], background=True)
    (foreground,) = await bench.queue([[5, 6]])
    bench.release()
    expect_rows(await background, [[1, 2], [3, 4]])
    expect_rows(await foreground, [[5, 6]])
    await occupant
    assert bench.passes == [(1, len(SOLO[0])), (1, 2)]
    await bench.send([[1, 2]], background=True)
    assert len(bench.passes) == 2
