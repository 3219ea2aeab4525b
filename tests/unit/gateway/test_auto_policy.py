"""The choice of a variant: every small table, properties of larger ones, and worked examples."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.gateway.auto_policy import (
    HYSTERESIS,
    MAX_REASON,
    MAX_TABLE,
    Candidate,
    Refusal,
    choose,
    misses,
)
from serving.seams import NO_LIMITS, AutoChoice, Limits

LIMITS = [
    Limits(*values)
    for values in product([None, 0.05], [None, 0.95], [None, 200])  # of what ROWS have
]
ROWS = list(product([None, 0.01, 0.2], [0.01, 0.1], [0.9, 1.0], [True, False], [100, 300]))
"""p95, service seconds, quality, whether auto may choose it, bytes."""


def candidate(name: str = "a", **changes: Any) -> Candidate:
    """A good variant: 10 ms, quality 0.99, 100 bytes, the whole machine."""
    good: dict[str, Any] = {
        "p95_latency_s": 0.01,
        "service_s": 0.01,
        "device": "cpu",
        "share_of_machine": 1.0,
        "quality_low": 0.99,
        "in_auto": True,
        "weights_bytes": 100,
    }
    return Candidate(name, **{**good, **changes})


def meets(variant: Candidate, limits: Limits) -> bool:
    """The rule, written once more."""
    p95, quality = variant.p95_latency_s, variant.quality_low
    return (
        (limits.max_latency_s is None or (p95 is not None and p95 <= limits.max_latency_s))
        and (limits.min_quality is None or (quality is not None and quality >= limits.min_quality))
        and (limits.max_weights_bytes is None or variant.weights_bytes <= limits.max_weights_bytes)
    )


def at_this_load(variant: Candidate, table: list[Candidate]) -> Candidate:
    """The rule for variants that share a processor, written once more."""
    p95 = variant.p95_latency_s
    if p95 is not None:
        for other in table:
            is_cheaper = other.cost * HYSTERESIS < variant.cost
            is_in_the_way = other.share_of_machine + variant.share_of_machine > 1
            if is_cheaper and is_in_the_way and other.device == variant.device:
                p95 = max(p95, other.p95_latency_s or 0)
    return replace(variant, p95_latency_s=p95)


def check(table: list[Candidate], limits: Limits, policy: str, previous: str | None) -> None:
    """Everything that must hold of any choice."""
    result = choose(table, limits, policy, previous)
    table = [at_this_load(variant, table) for variant in table]
    by_name = {variant.variant: variant for variant in table}
    usable = [variant for variant in table if variant.in_auto]
    qualified = [variant for variant in usable if meets(variant, limits)]
    if isinstance(result, Refusal):
        assert not qualified
        assert policy == "strict" or not usable
        return
    chosen = by_name[result.variant]
    assert chosen in usable
    assert result.reason.isascii()
    assert result.reason.isprintable()
    assert len(result.reason) <= MAX_REASON
    assert set(result.missed) == set(misses(chosen, limits))
    if qualified:
        assert chosen in qualified
        assert result.missed == ()
        cheapest = min(variant.cost for variant in qualified)
        allowed = HYSTERESIS * cheapest if chosen.variant == previous else cheapest
        assert chosen.cost <= allowed
    else:
        assert policy == "best_effort"
        assert result.missed
        nearest = min(sum(misses(variant, limits).values()) for variant in usable)
        assert sum(misses(chosen, limits).values()) == nearest


def test_every_table_of_two_variants() -> None:
    pairs = product(ROWS, repeat=2)
    for first, second in pairs:
        table = [
            Candidate(name, p95, service, "cpu", 1.0, quality, in_auto, size)
            for name, (p95, service, quality, in_auto, size) in zip(
                "ab", (first, second), strict=True
            )
        ]
        for limits in LIMITS:
            check(table, limits, "best_effort", None)
        check(table, LIMITS[-1], "strict", "b")


seconds = st.none() | st.floats(1e-4, 10)
tables = st.lists(
    st.builds(
        Candidate,
        variant=st.just(""),
        p95_latency_s=seconds,
        service_s=seconds,
        device=st.sampled_from(["cpu", "cuda"]),
        share_of_machine=st.floats(0.01, 1),
        quality_low=st.none() | st.floats(0, 1),
        in_auto=st.booleans(),
        weights_bytes=st.integers(1, 10**12),
    ),
    min_size=1,
    max_size=6,
).map(lambda rows: [replace(row, variant=name) for name, row in zip("abcdef", rows, strict=False)])
limits_of_any_kind = st.builds(
    Limits,
    max_latency_s=st.none() | st.floats(1e-4, 10),
    min_quality=st.none() | st.floats(0, 1),
    max_weights_bytes=st.none() | st.integers(1, 10**12),
)


@settings(max_examples=60, deadline=None)
@given(
    table=tables,
    limits=limits_of_any_kind,
    policy=st.sampled_from(["best_effort", "strict"]),
    previous=st.none() | st.sampled_from("abcdefg"),
)
def test_any_table(table, limits, policy, previous) -> None:
    check(table, limits, policy, previous)


@settings(max_examples=60, deadline=None)
@given(table=tables, limits=limits_of_any_kind)
def test_a_choice_that_is_asked_for_again_stays(table, limits) -> None:
    first = choose(table, limits, "best_effort", None)
    if isinstance(first, AutoChoice):
        again = choose(table, limits, "best_effort", first.variant)
        assert isinstance(again, AutoChoice)
        assert again.variant == first.variant


def chosen(table: list[Candidate], limits: Limits = NO_LIMITS, previous: str | None = None) -> str:
    result = choose(table, limits, "best_effort", previous)
    assert isinstance(result, AutoChoice)
    return result.variant


@pytest.mark.parametrize(
    ("field", "at_the_limit", "beyond", "limits"),
    [
        ("p95_latency_s", 0.05, 0.0501, Limits(max_latency_s=0.05)),
        ("quality_low", 0.95, 0.9499, Limits(min_quality=0.95)),
        ("weights_bytes", 200, 201, Limits(max_weights_bytes=200)),
    ],
)
def test_a_limit_is_met_up_to_its_value(field, at_the_limit, beyond, limits) -> None:
    dear = candidate("dear", service_s=9, device="cuda")
    for value, expected in ((at_the_limit, "cheap"), (beyond, "dear")):
        assert chosen([dear, candidate("cheap", **{field: value})], limits) == expected


def test_the_cheapest_takes_the_least_time_times_share_of_the_machine() -> None:
    slow_on_few_cores = candidate("few", service_s=0.03, share_of_machine=0.25)
    fast_on_all = candidate("all", service_s=0.01)
    assert chosen([fast_on_all, slow_on_few_cores]) == "few"


def test_what_is_unknown_comes_last_and_equals_come_in_order() -> None:
    unknown = candidate("unknown", service_s=None)
    assert chosen([unknown, candidate("known", service_s=99)]) == "known"
    assert chosen([candidate("first"), candidate("second")]) == "first"
    assert chosen([unknown, candidate("unknown too", service_s=None)]) == "unknown"


@pytest.mark.parametrize(("cost", "expected"), [(0.011, "old"), (0.01101, "new")])
def test_the_last_choice_stays_while_it_is_hardly_dearer(cost: float, expected: str) -> None:
    table = [candidate("old", service_s=cost), candidate("new", service_s=0.01)]
    assert chosen(table, previous="old") == expected
    assert chosen(table) == "new"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"service_s": 0.02}, "int8"),  # dearer, so it would wait as bf16 does
        ({"service_s": 0.02, "device": "cuda"}, "other"),
        ({"service_s": 0.20, "share_of_machine": 0.1}, "int8"),
        ({"service_s": 0.011}, "other"),  # hardly dearer
        ({"service_s": None}, "int8"),  # who knows
    ],
)
def test_a_dearer_variant_does_not_relieve_a_processor(changes, expected: str) -> None:
    table = [
        candidate("bf16", p95_latency_s=0.3),
        candidate("other", **{"quality_low": 1.0, "p95_latency_s": 0.03, **changes}),
        candidate("int8", quality_low=0.94, p95_latency_s=0.03),
    ]
    assert chosen(table, Limits(max_latency_s=0.2, min_quality=0.95)) == expected


def test_a_dearer_variant_relieves_one_that_leaves_it_cores() -> None:
    limits = Limits(max_latency_s=0.2)
    for share, expected in ((0.5, "dear"), (0.6, "cheap")):
        cheap = candidate("cheap", p95_latency_s=0.3, share_of_machine=share)
        dear = candidate("dear", service_s=0.02, share_of_machine=share)
        assert chosen([cheap, dear], limits) == expected


def test_the_last_choice_goes_when_it_misses_a_limit() -> None:
    table = [candidate("old", p95_latency_s=0.06), candidate("new")]
    assert chosen(table, Limits(max_latency_s=0.05), previous="old") == "new"


@pytest.mark.parametrize(
    ("limits", "expected", "missed"),
    [
        (Limits(max_latency_s=0.01), "quick", ("max_latency_ms",)),
        (Limits(min_quality=0.995), "exact", ("min_quality",)),
        (Limits(max_weights_bytes=10), "quick", ("max_weights_bytes",)),
        # quick misses by 1 + 0.1, exact by 3 + 0.009.
        (Limits(max_latency_s=0.01, min_quality=0.999), "quick", ("max_latency_ms", "min_quality")),
    ],
)
def test_where_none_qualifies_the_nearest_is_taken(limits, expected, missed) -> None:
    table = [
        candidate("exact", p95_latency_s=0.04, quality_low=0.99, weights_bytes=400),
        candidate("quick", p95_latency_s=0.02, quality_low=0.90, weights_bytes=100),
    ]
    result = choose(table, limits, "best_effort", None)
    assert isinstance(result, AutoChoice)
    assert (result.variant, result.missed) == (expected, missed)


def test_an_unknown_latency_is_tried_before_one_that_is_too_long() -> None:
    table = [candidate("slow", p95_latency_s=0.06), candidate("new", p95_latency_s=None)]
    result = choose(table, Limits(max_latency_s=0.05), "best_effort", None)
    assert isinstance(result, AutoChoice)
    assert (result.variant, result.missed) == ("new", ("max_latency_ms",))


def test_an_unknown_latency_is_tried_by_one_request_at_a_time() -> None:
    busy = candidate("new", p95_latency_s=None, in_flight=1)
    table = [busy, candidate("slow", p95_latency_s=99)]
    assert chosen(table, Limits(max_latency_s=0.05)) == "slow"
    assert chosen([busy], Limits(max_latency_s=0.05)) == "new"


def test_an_unknown_quality_is_no_nearer_than_a_low_one() -> None:
    table = [candidate("unknown", quality_low=None), candidate("low", quality_low=0.5)]
    assert chosen(table, Limits(min_quality=0.9)) == "low"


@pytest.mark.parametrize("policy", ["best_effort", "strict"])
def test_a_variant_that_fails_is_chosen_by_nobody(policy: str) -> None:
    failing = candidate("failing", in_auto=False)
    result = choose([failing], NO_LIMITS, policy, "failing")
    assert isinstance(result, Refusal)
    assert result.reason.startswith("every variant fails its floor: failing (")
    alone = choose([failing, candidate("slow", service_s=99)], NO_LIMITS, policy, "failing")
    assert isinstance(alone, AutoChoice)
    assert alone.variant == "slow"


def test_a_refusal_says_what_each_variant_offers() -> None:
    table = [
        candidate("fp32", p95_latency_s=0.0312, quality_low=1.0),
        candidate("int4", p95_latency_s=None, quality_low=None, in_auto=False),
    ]
    result = choose(table, Limits(0.02, 0.5, 1_000_000), "strict", None)
    assert isinstance(result, Refusal)
    assert result.reason == (
        "no variant meets max_latency_ms 20 with min_quality 0.5 with max_weights_bytes 1000000: "
        "fp32 (p95 31.2 ms, quality 1.0000, 100 bytes); "
        "int4 (p95 unknown, quality unknown, 100 bytes, fails its floor)"
    )


def test_texts_are_bounded() -> None:
    table = [candidate("x" * 90 + str(i), p95_latency_s=9) for i in range(50)]
    refusal = choose(table, Limits(max_latency_s=1), "strict", None)
    assert isinstance(refusal, Refusal)
    assert len(refusal.reason) <= MAX_TABLE + 200
    choice = choose(table, Limits(max_latency_s=1), "best_effort", None)
    assert isinstance(choice, AutoChoice)
    assert len(choice.reason) <= MAX_REASON
