"""What a replica exports of itself and of its work."""

import pytest

from serving.metrics import exposition
from serving.seams import Progress, Timings
from tests.unit.fakes.encoder import TIMINGS
from tests.unit.metrics.pages import EMBEDDINGS, GENERATION, encoder, families, generator, value

OF_EVERY_REPLICA = {
    "queue_duration_seconds": "histogram",
    "tokenize_duration_seconds": "histogram",
    "core_wait_seconds": "histogram",
    "input_tokens": "counter",
    "busy_seconds": "counter",
    "in_flight_requests": "gauge",
    "queued_requests": "gauge",
    "queue_limit_requests": "gauge",
    "batch_size": "histogram",
    "weights_bytes": "gauge",
    "resident_bytes": "gauge",
    "private_bytes": "gauge",
    "peak_bytes": "gauge",
    "load_seconds": "gauge",
    "variant_info": "gauge",
}
OF_ENCODERS = {
    "forward_duration_seconds": "histogram",
    "batch_tokens": "histogram",
}
OF_GENERATORS = {
    "time_to_first_token_seconds": "histogram",
    "time_per_output_token_seconds": "histogram",
    "prefill_duration_seconds": "histogram",
    "decode_duration_seconds": "histogram",
    "output_tokens": "counter",
    "cached_input_tokens": "counter",
    "running_requests": "gauge",
    "kv_cache_bytes": "gauge",
    "kv_cache_used_ratio": "gauge",
}


@pytest.mark.parametrize(
    ("open_replica", "own"), [(encoder, OF_ENCODERS), (generator, OF_GENERATORS)]
)
def test_the_set_of_families_is_the_documented_one(open_replica, own: dict[str, str]) -> None:
    replica, _ = open_replica()
    page = families(exposition([replica.registry]))
    assert {name: family.type for name, family in page.items()} == {
        f"quantserve_{name}": kind for name, kind in {**OF_EVERY_REPLICA, **own}.items()
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [("weights_bytes", 100), ("resident_bytes", 200), ("peak_bytes", 300), ("load_seconds", 1.5)],
)
def test_what_a_replica_occupies_is_published(name: str, expected: float) -> None:
    assert value(encoder()[0].registry, name, EMBEDDINGS) == expected
    assert value(generator()[0].registry, name, GENERATION) == expected


def test_what_a_variant_is_stands_in_its_info() -> None:
    what = {"device": "cpu", "runtime": "torch", "isa": "avx2", "artifact": "0123456789abcdef"}
    registry = generator()[0].registry
    own = {"task": "generation", "role": "reference", "recipe": "int4"}
    assert value(registry, "variant_info", GENERATION, **what, **own) == 1
    registry = encoder()[0].registry
    own = {"task": "embeddings", "role": "", "recipe": 'a "quoted"\nline \\'}
    assert value(registry, "variant_info", EMBEDDINGS, **what, **own) == 1


def test_the_limit_of_the_queue_is_published() -> None:
    assert value(encoder()[0].registry, "queue_limit_requests", EMBEDDINGS) == 5


@pytest.mark.parametrize(
    ("name", "expected"),
    [("queue", TIMINGS.queue), ("tokenize", TIMINGS.tokenize), ("forward", TIMINGS.forward)],
)
def test_each_phase_of_a_request_has_a_histogram(name: str, expected: float) -> None:
    replica, metrics = encoder()
    metrics.observe_request(TIMINGS, 11)
    assert value(replica.registry, f"{name}_duration_seconds_sum", EMBEDDINGS) == expected
    assert value(replica.registry, f"{name}_duration_seconds_count", EMBEDDINGS) == 1


def test_tokens_of_answered_requests_add_up() -> None:
    replica, metrics = encoder()
    metrics.observe_request(Timings(0, 0, 0, 0, 0), 11)
    metrics.observe_request(Timings(0, 0, 0, 0, 0), 31)
    assert value(replica.registry, "input_tokens_total", EMBEDDINGS) == 42


def test_a_batch_is_counted_by_its_texts_and_tokens() -> None:
    replica, metrics = encoder()
    metrics.observe_batch(3, 40)
    assert value(replica.registry, "batch_size_bucket", EMBEDDINGS, le="1.0") == 0
    assert value(replica.registry, "batch_size_bucket", EMBEDDINGS, le="8.0") == 1
    assert value(replica.registry, "batch_tokens_sum", EMBEDDINGS) == 40


def test_a_step_is_counted_by_its_sequences() -> None:
    replica, metrics = generator()
    metrics.observe_step(3)
    metrics.observe_step(2)
    assert value(replica.registry, "batch_size_sum", GENERATION) == 5
    assert value(replica.registry, "batch_size_count", GENERATION) == 2


def test_how_busy_a_generator_is_is_read_when_asked() -> None:
    registry = generator()[0].registry
    names = ("running_requests", "queued_requests", "kv_cache_bytes", "kv_cache_used_ratio")
    assert [value(registry, name, GENERATION) for name in names] == [2, 3, 4_000, 0.25]


def test_each_phase_of_a_sequence_has_a_histogram() -> None:
    replica, metrics = generator()
    metrics.observe_tokenize(0.125)
    metrics.observe_first_token(0.75)
    metrics.observe_end(Progress(queue=0.25, prefill=0.5, decode=2, cached_tokens=3), 5, 3)
    expected = {
        "tokenize_duration": 0.125,
        "time_to_first_token": 0.75,
        "queue_duration": 0.25,
        "prefill_duration": 0.5,
        "decode_duration": 2,
        "time_per_output_token": 3 / 4,
    }
    for name, seconds in expected.items():
        assert value(replica.registry, f"{name}_seconds_sum", GENERATION) == seconds
        assert value(replica.registry, f"{name}_seconds_count", GENERATION) == 1


@pytest.mark.parametrize("tokens", [0, 1])
def test_there_is_no_time_per_token_without_a_second_one(tokens: int) -> None:
    replica, metrics = generator()
    metrics.observe_end(Progress(0, 0, 0, 0), tokens, 0)
    assert value(replica.registry, "time_per_output_token_seconds_count", GENERATION) == 0


def test_tokens_of_prompts_are_counted_and_those_that_were_cached() -> None:
    replica, metrics = generator()
    metrics.observe_prompt(11, 4)
    metrics.observe_prompt(31, 0)
    assert value(replica.registry, "input_tokens_total", GENERATION) == 42
    assert value(replica.registry, "cached_input_tokens_total", GENERATION) == 4
