"""Which waiting items go into the next window: requests take turns, each by its tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from serving.seams import Item

QUANTUM = 128
"""Tokens that a request may take when its turn comes: a request of many texts soon lets others in,
and texts of one request, which tend to be of one length, still come in groups."""


class Waiting(Protocol):
    """A request with items that no pass has taken yet.

    Attributes:
        items: All of its items.
        num_taken: Leading items that were taken.
        credit: Tokens that it may take now; negative after an item that was larger.
    """

    items: Sequence[Item]
    num_taken: int
    credit: int


Request = TypeVar("Request", bound=Waiting)


class FairQueue(Generic[Request]):
    """Deficit round robin over requests, with new ones first for half of each window.

    The items of a request are taken in their order. A new request so waits for the requests that
    came before it and are new too, but not for the rest of those that are under way; and these get
    at least the other half, however many new ones come. After M. Shreedhar and G. Varghese,
    "Efficient Fair Queuing Using Deficit Round Robin" (1996); new flows first as in RFC 8290.
    """

    def __init__(self) -> None:
        self._new: OrderedDict[Request, None] = OrderedDict()
        self._under_way: OrderedDict[Request, None] = OrderedDict()
        """The one whose turn it is first."""

    def __bool__(self) -> bool:
        return bool(self._new or self._under_way)

    def add(self, request: Request) -> None:
        """Let a request wait, with at least one item."""
        self._new[request] = None

    def discard(self, request: Request) -> None:
        """Forget a request."""
        self._new.pop(request, None)
        self._under_way.pop(request, None)

    def take(self, max_cost: int) -> list[tuple[Request, int]]:
        """Take items that cost no more together, but at least one if any waits.

        Returns:
            Requests, and the places of the items in them.
        """
        window: list[tuple[Request, int]] = []
        reserved = max_cost // 2 if self._under_way else 0
        room = self._admit_new(window, max_cost, max_cost - reserved)
        while self._under_way:
            request = next(iter(self._under_way))
            request.credit += QUANTUM
            room, is_full = _take_from(request, window, room)
            if is_full:
                request.credit -= QUANTUM  # its turn is still to come
                return window
            self._under_way.move_to_end(request)
            if request.num_taken == len(request.items):
                del self._under_way[request]
            if not self._under_way:
                room = self._admit_new(window, room, room)
        return window

    def _admit_new(self, window: list[tuple[Request, int]], room: int, own: int) -> int:
        """Give new requests their first turn, from ``own`` of the room; returns what is left."""
        while self._new:
            request = next(iter(self._new))
            request.credit = QUANTUM
            left, is_full = _take_from(request, window, own)
            room, own = room - (own - left), left
            if request.num_taken:
                del self._new[request]
                if request.num_taken < len(request.items):
                    self._under_way[request] = None
            if is_full:
                break
        return room


def _take_from(request: Request, window: list[tuple[Request, int]], room: int) -> tuple[int, bool]:
    """Take what the credit allows; returns the room that is left, and whether it was too small."""
    while request.credit > 0 and request.num_taken < len(request.items):
        cost = request.items[request.num_taken].cost
        if window and cost > room:
            return room, True
        window.append((request, request.num_taken))
        request.num_taken += 1
        request.credit -= cost
        room -= cost
    return room, False
