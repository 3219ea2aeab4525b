"""In which order variants take turns."""

from __future__ import annotations

from itertools import pairwise, permutations

from loadtests.scenario_run import order_of_turns

VARIANTS = ("a", "b", "c", "d")


def test_nobody_always_follows_the_same_one() -> None:
    orders = [order_of_turns(VARIANTS, (0, 5, number)) for number in range(30)]
    assert all(sorted(order) == list(VARIANTS) for order in orders)
    assert {order[0] for order in orders} == set(VARIANTS)
    assert {pair for order in orders for pair in pairwise(order)} == set(permutations(VARIANTS, 2))


def test_the_seed_decides_on_the_order() -> None:
    assert order_of_turns(VARIANTS, (0, 5, 1)) == order_of_turns(VARIANTS, (0, 5, 1))
    assert len({tuple(order_of_turns(VARIANTS, (seed, 5, 1))) for seed in range(10)}) > 1
