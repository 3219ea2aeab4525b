"""Properties of the queue, whatever waits in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from serving.replica.encoder.fair_queue import QUANTUM, FairQueue
from serving.seams import Item
from tests.unit.fakes.encoder import FakeItem

MAX_COST = 1_024
COSTS = st.lists(st.integers(1, 512), min_size=1, max_size=25)


@dataclass(eq=False)
class Asked:
    """A request of items that cost so much."""

    costs: Sequence[int]
    items: Sequence[Item] = field(init=False)
    num_taken: int = 0
    credit: int = 0

    def __post_init__(self) -> None:
        self.items = [FakeItem((0,) * cost) for cost in self.costs]


Window = list[tuple[Asked, int]]


def cost_of(window: Window) -> int:
    return sum(request.items[index].cost for request, index in window)


@given(st.lists(COSTS, min_size=1, max_size=8), st.integers(1, 2_000), st.data())
def test_every_item_is_taken_once_and_in_the_order_of_its_request(
    all_costs: list[list[int]], max_cost: int, data: st.DataObject
) -> None:
    queue: FairQueue[Asked] = FairQueue()
    coming = [Asked(costs) for costs in all_costs]
    requests = list(coming)
    taken: dict[Asked, list[int]] = {request: [] for request in requests}
    while coming or queue:
        fewest = 0 if queue else 1
        for _ in range(data.draw(st.integers(fewest, max(fewest, len(coming))))):
            queue.add(coming.pop())
        window = queue.take(max_cost)
        assert bool(window) or not queue
        assert cost_of(window) <= max_cost or len(window) == 1
        for request, index in window:
            taken[request].append(index)
    assert all(taken[request] == list(range(len(request.items))) for request in requests)


@given(st.lists(COSTS, min_size=1, max_size=12), st.data())
def test_what_is_discarded_is_never_taken(all_costs: list[list[int]], data: st.DataObject) -> None:
    queue: FairQueue[Asked] = FairQueue()
    requests = [Asked(costs) for costs in all_costs]
    for request in requests:
        queue.add(request)
    queue.take(MAX_COST)
    gone = data.draw(st.sampled_from(requests))
    queue.discard(gone)
    while window := queue.take(MAX_COST):
        assert all(request is not gone for request, _ in window)


@given(
    st.lists(st.lists(st.integers(8, 128), min_size=50, max_size=256), min_size=1, max_size=8),
    st.integers(0, 4),
    st.integers(1, 16),
)
def test_a_short_request_waits_for_no_more_of_those_that_are_under_way(
    all_costs: list[list[int]], windows_more: int, cost: int
) -> None:
    queue: FairQueue[Asked] = FairQueue()
    before = [Asked(costs) for costs in all_costs]
    for request in before:
        queue.add(request)
    while not all(request.num_taken for request in before):
        queue.take(MAX_COST)
    for _ in range(windows_more):
        queue.take(MAX_COST)
    short = Asked([cost])
    queue.add(short)
    assert (short, 0) in queue.take(MAX_COST)


@given(st.integers(0, 12), st.integers(1, 16))
def test_of_new_ones_before_it_a_short_request_waits_for_a_turn_each(ahead: int, cost: int) -> None:
    queue: FairQueue[Asked] = FairQueue()
    for _ in range(ahead):
        queue.add(Asked([100] * 200))
    short = Asked([cost])
    queue.add(short)
    windows = 1
    while (short, 0) not in queue.take(MAX_COST):
        windows += 1
    # A turn is two texts of 100 tokens here, and new requests have at least half of each window.
    assert windows <= 1 + ahead * 200 // (MAX_COST // 2 - 200)


@given(st.integers(1, 20))
def test_those_under_way_get_half_however_many_new_ones_come(num_new: int) -> None:
    queue: FairQueue[Asked] = FairQueue()
    long = Asked([32] * 400)
    queue.add(long)
    queue.take(MAX_COST)
    while long.num_taken < len(long.items):
        before = long.num_taken
        for _ in range(num_new * 100):
            queue.add(Asked([16]))
        queue.take(MAX_COST)
        got = 32 * (long.num_taken - before)
        assert got >= min(MAX_COST // 2, 32 * (len(long.items) - before)) - 32


@given(st.integers(2, 6), st.integers(8, 512), st.integers(8, 512))
def test_requests_under_way_get_equal_shares_of_tokens(count: int, small: int, large: int) -> None:
    queue: FairQueue[Asked] = FairQueue()
    requests = [Asked([small if i % 2 else large] * 4_000) for i in range(count)]
    for request in requests:
        queue.add(request)
    while not all(request.num_taken for request in requests):
        queue.take(MAX_COST)
    before = [request.num_taken for request in requests]
    for _ in range(12 * count):
        queue.take(MAX_COST)
    tokens = [
        (request.num_taken - taken) * request.items[0].cost
        for request, taken in zip(requests, before, strict=True)
    ]
    # A turn gives a quantum, and an item that is larger is paid back in later turns: after as many
    # turns two differ by less than their items, and one may be a turn ahead.
    assert max(tokens) - min(tokens) <= QUANTUM + small + large
