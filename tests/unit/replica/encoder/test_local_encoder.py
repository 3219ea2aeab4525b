"""The local encoder: deadline, order of its steps, and what it counts."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.cores import UnsharedCores
from serving.errors import DeadlineExceeded, InputFails, InvalidField, QueueFull
from serving.metrics import EncoderMetrics, Labels, ReplicaMetrics
from serving.replica.encoder import local_encoder
from serving.replica.encoder.batcher import Batcher
from serving.replica.encoder.local_encoder import LocalEncoder
from serving.replica.tokenizing import INLINE_CHARACTERS
from serving.seams import AnswerOptions, Arrays, InferenceRequest, Input, Item, Outcome
from tests.unit.fakes.backends import describe
from tests.unit.fakes.encoder import WIDTH, FakeEngine, FakeItem, FakeTask, row_of
from tests.unit.fakes.waiting import MAX_WAIT_S


@dataclass
class Replica:
    """A local encoder over fakes."""

    task: FakeTask
    engine: FakeEngine
    metrics: ReplicaMetrics
    backend: LocalEncoder

    def value(self, name: str) -> float | None:
        labels = {"model": "minilm", "variant": "int4", "replica": "r1"}
        return self.metrics.registry.get_sample_value(f"quantserve_{name}", labels)

    def count(self, phase: str) -> float | None:
        return self.value(f"{phase}_duration_seconds_count")


@pytest.fixture
def replica() -> Replica:
    task, engine = FakeTask(), FakeEngine("int4")
    metrics = ReplicaMetrics(Labels("minilm", "int4", "embeddings"), "r1")
    measured = EncoderMetrics(metrics)
    batcher = Batcher(
        engine,
        task.collate,
        ThreadPoolExecutor(1),
        UnsharedCores(1),
        64,
        2,
        measured.observe_batch,
        FakeItem((1, 2)),
    )
    backend = LocalEncoder("minilm", task, batcher, measured, lambda: describe(task))
    return Replica(task, engine, metrics, backend)


def request(
    *inputs: Input, truncate: bool = False, dimensions: int | None = None, timeout_s: float = 30
) -> InferenceRequest:
    return InferenceRequest(inputs, truncate, AnswerOptions(dimensions), timeout_s)


async def test_every_text_is_answered_in_order(replica: Replica) -> None:
    outcome = await replica.backend.infer(request("cat", "a dog", "cat"))
    cat, dog = row_of([1, *b"cat", 2], "int4"), row_of([1, *b"a dog", 2], "int4")
    assert outcome.rows.tolist() == [cat.tolist(), dog.tolist(), cat.tolist()]
    assert outcome.labels == ()
    assert outcome.tokens == 5 + 7 + 5


async def test_a_pair_is_one_input(replica: Replica) -> None:
    outcome = await replica.backend.infer(request(("cat", "dog"), "cow"))
    pair = [1, *b"cat", 3, *b"dog", 2]
    assert outcome.rows[0].tolist() == row_of(pair, "int4").tolist()
    assert outcome.tokens == 9 + 5


async def test_the_parts_of_an_answer_s_time_fit_into_its_total(replica: Replica) -> None:
    timings = (await replica.backend.infer(request("cat"))).timings
    parts = (timings.queue, timings.tokenize, timings.forward)
    assert min(parts) >= 0
    assert sum(parts) <= timings.total


async def test_an_answer_is_counted_once(replica: Replica) -> None:
    await replica.backend.infer(request("cat", "dog"))
    assert [replica.count(phase) for phase in ("queue", "tokenize", "forward")] == [1, 1, 1]
    assert replica.value("input_tokens_total") == 10
    assert replica.value("batch_size_count") == 1
    assert replica.value("in_flight_requests") == 0


async def test_dimensions_and_truncation_reach_the_task(replica: Replica) -> None:
    outcome = await replica.backend.infer(request("x" * 99, truncate=True, dimensions=3))
    assert outcome.rows.shape == (1, 3)
    assert outcome.tokens == replica.task.max_tokens


@pytest.mark.parametrize(
    "refused", [request("cat", dimensions=9), request("x" * 99), request("cat", "x" * 99)]
)
async def test_a_refused_request_costs_no_pass(replica: Replica, refused) -> None:
    with pytest.raises(InvalidField):
        await replica.backend.infer(refused)
    assert replica.engine.batches == []
    assert replica.count("forward") == 0
    assert replica.value("in_flight_requests") == 0


async def test_dimensions_are_checked_before_the_text_is_tokenized(replica: Replica) -> None:
    with pytest.raises(InvalidField):
        await replica.backend.infer(request("cat", dimensions=9))
    assert replica.task.prepared_in == []


async def test_no_answer_in_time_is_told_and_uncounted(replica: Replica) -> None:
    replica.engine.gate.clear()
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.01 s"):
        await replica.backend.infer(request("cat", timeout_s=0.01))
    replica.engine.gate.set()
    assert replica.count("forward") == 0
    assert replica.value("in_flight_requests") == 0


async def test_a_request_past_its_deadline_leaves_the_queue(replica: Replica) -> None:
    replica.engine.gate.clear()
    first = asyncio.create_task(replica.backend.infer(request("cat")))
    assert await asyncio.to_thread(replica.engine.entered.wait, MAX_WAIT_S)
    with pytest.raises(DeadlineExceeded):
        await replica.backend.infer(request("dog", timeout_s=0.01))
    replica.engine.gate.set()
    await first
    await replica.backend.infer(request("cow"))
    assert replica.engine.batches == [[[1, *b"cat", 2]], [[1, *b"cow", 2]]]


async def test_a_full_queue_is_told(replica: Replica) -> None:
    replica.engine.gate.clear()
    requests = [asyncio.create_task(replica.backend.infer(request("cat"))) for _ in range(4)]
    done, waiting = await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
    replica.engine.gate.set()
    assert {type(task.exception()) for task in done} == {QueueFull}
    await asyncio.gather(*waiting)
    assert replica.value("in_flight_requests") == 0


async def test_what_a_full_queue_refuses_is_not_tokenized(replica: Replica) -> None:
    replica.engine.gate.clear()
    first = asyncio.create_task(replica.backend.infer(request("cat")))
    assert await asyncio.to_thread(replica.engine.entered.wait, MAX_WAIT_S)
    waiting = [asyncio.create_task(replica.backend.infer(request("dog"))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await replica.backend.infer(request("cow"))
    assert len(replica.task.prepared_in) == 3
    replica.engine.gate.set()
    await asyncio.gather(first, *waiting)


async def test_what_is_being_tokenized_fills_the_queue(replica: Replica, monkeypatch) -> None:
    gate, prepare = threading.Event(), replica.task.prepare

    def prepare_at_gate(*asked: Any) -> list[Item]:
        assert gate.wait(MAX_WAIT_S)
        return prepare(*asked)

    monkeypatch.setattr(replica.task, "prepare", prepare_at_gate)
    long = request("x" * (INLINE_CHARACTERS + 1), truncate=True)
    waiting = [asyncio.create_task(replica.backend.infer(long)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await replica.backend.infer(long)
    gate.set()
    await asyncio.gather(*waiting)
    assert len(replica.task.prepared_in) == 2


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
async def test_numbers_that_are_none_are_no_answer(
    replica: Replica, monkeypatch, broken: float
) -> None:
    forward = replica.engine.forward

    def break_the_long(inputs: Arrays) -> NDArray[np.float32]:
        rows = forward(inputs)
        rows[inputs["attention_mask"].sum(1) > 5, 3] = broken
        return rows

    monkeypatch.setattr(replica.engine, "forward", break_the_long)
    fine, failed = await asyncio.gather(
        replica.backend.infer(request("cat")),
        replica.backend.infer(request("dog", "a bird")),
        return_exceptions=True,
    )
    assert isinstance(fine, Outcome)
    assert isinstance(failed, InputFails)
    assert "NaN or infinite on input[1]" in failed.message
    assert replica.count("forward") == 1


async def test_requests_in_flight_are_shown(replica: Replica) -> None:
    replica.engine.gate.clear()
    task = asyncio.create_task(replica.backend.infer(request("cat")))
    assert await asyncio.to_thread(replica.engine.entered.wait, MAX_WAIT_S)
    assert replica.value("in_flight_requests") == 1
    replica.engine.gate.set()
    await task


@pytest.mark.parametrize(
    ("characters", "is_on_the_loop"), [(INLINE_CHARACTERS, True), (INLINE_CHARACTERS + 1, False)]
)
@pytest.mark.parametrize("is_pair", [True, False])
async def test_long_texts_are_tokenized_off_the_loop(
    replica: Replica, characters: int, is_on_the_loop: bool, is_pair: bool
) -> None:
    half = "x" * (characters // 2)
    texts = half, "y" * (characters - len(half))
    await replica.backend.infer(request(*([texts] if is_pair else texts), truncate=True))
    [thread] = replica.task.prepared_in
    assert (thread is threading.current_thread()) == is_on_the_loop


async def test_describe_says_what_is_loaded(replica: Replica) -> None:
    assert await replica.backend.describe() == describe(replica.task)


async def test_a_background_request_counts_in_no_metric(replica: Replica) -> None:
    outcome = await replica.backend.infer(replace(request("cat"), background=True))
    assert outcome.rows.tolist() == [row_of([1, *b"cat", 2], "int4").tolist()]
    assert [replica.count(phase) for phase in ("queue", "tokenize", "forward")] == [0, 0, 0]
    assert replica.value("input_tokens_total") == 0
    assert replica.value("batch_size_count") == 0


@pytest.mark.parametrize("background", [True, False])
async def test_a_background_request_runs_only_alone(replica: Replica, background: bool) -> None:
    replica.engine.gate.clear()
    first = asyncio.create_task(
        replica.backend.infer(replace(request("cat"), background=background))
    )
    assert await asyncio.to_thread(replica.engine.entered.wait, MAX_WAIT_S)
    assert replica.value("in_flight_requests") == (0 if background else 1)
    with pytest.raises(QueueFull, match="other work"):
        await replica.backend.infer(replace(request("dog"), background=True))
    second = asyncio.create_task(replica.backend.infer(request("cow")))
    replica.engine.gate.set()
    await asyncio.gather(first, second)
    await replica.backend.infer(replace(request("dog"), background=True))
    assert replica.engine.batches == [[[1, *text, 2]] for text in (b"cat", b"cow", b"dog")]


async def test_token_ids_take_the_place_of_texts(replica: Replica) -> None:
    asked = replace(request(), token_ids=((1, 97, 2), (1, 98, 99, 2)))
    outcome = await replica.backend.infer(asked)
    expected = await replica.backend.infer(request("a", "bc"))
    np.testing.assert_array_equal(outcome.rows, expected.rows)
    assert outcome.tokens == 7


async def test_a_prompt_is_put_before_texts_and_not_before_token_ids(replica: Replica) -> None:
    named = AnswerOptions(prompt_name="query")
    outcome = await replica.backend.infer(replace(request("a"), options=named))
    expected = await replica.backend.infer(request("querya"))
    np.testing.assert_array_equal(outcome.rows, expected.rows)
    with pytest.raises(InvalidField, match="nothing is added to token ids"):
        await replica.backend.infer(replace(request(), token_ids=((1, 2),), options=named))


@pytest.mark.parametrize("is_large", [False, True])
async def test_large_answers_are_finished_beside_the_event_loop(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    threads, decode = [], replica.task.decode

    def watched(rows: np.ndarray, options: AnswerOptions) -> np.ndarray:
        threads.append(threading.current_thread())
        return decode(rows, options)

    monkeypatch.setattr(replica.task, "decode", watched)
    monkeypatch.setattr(local_encoder, "INLINE_NUMBERS", 2 * WIDTH - is_large)
    outcome = await replica.backend.infer(request("a", "b", dimensions=3))
    assert outcome.rows.shape == (2, 3)
    assert (threads == [threading.main_thread()]) is not is_large


class OnlyTexts:
    """A task without ``prepare_ids``."""

    def check_options(self, options: AnswerOptions) -> None:
        """Any will do."""


async def test_a_task_that_takes_no_token_ids(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica.backend, "_task", OnlyTexts())
    with pytest.raises(InvalidField, match="takes no token ids; send text"):
        await replica.backend.infer(replace(request(), token_ids=((1, 2),)))
