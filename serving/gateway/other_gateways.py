"""The other gateways of the service: what they have counted, and what they have measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serving.gateway.cluster import NO_ANSWER, REPLICA_ANSWER_S
from serving.gateway.elsewhere import GatewayReport
from serving.gateway.latencies import Latencies
from serving.gateway.variant_status import GATEWAY_APPLICATION
from serving.serve_application import Application

REPORT_S = 0.5
"""How long a gateway may take to tell what it has measured; the next time it tells that, too."""


class OtherGateways:
    """Asks all gateways, and leaves this one's own answer out.

    Args:
        own: This gateway's name, as ``replica`` has it on ``/metrics``.
        is_alone: Whether the configuration has no other, so that nobody need be asked.
        latencies: What this one has measured, and learns of the others.
        own_page: What this one has counted, as Prometheus text.
    """

    def __init__(
        self, own: str, is_alone: bool, latencies: Latencies, own_page: Callable[[], str]
    ) -> None:
        self._own = own
        self._is_alone = is_alone
        self._latencies = latencies
        self._own_page = own_page
        self._application = Application(GATEWAY_APPLICATION)

    async def pages(self) -> list[str]:
        """What every gateway that answers has counted, this one included."""
        others: list[tuple[str, str]] = await self._ask("counted", within_s=REPLICA_ANSWER_S)
        return [self._own_page(), *(page for name, page in others if name != self._own)]

    async def learn(self) -> None:
        """Have the latencies know what the others have measured since they were asked last."""
        told = self._latencies.told
        answers: list[GatewayReport | None] = await self._ask("measured", told, within_s=REPORT_S)
        self._latencies.learn([one for one in answers if one and one.gateway != self._own])

    def counted(self) -> tuple[str, str]:
        """Answer another gateway's ``pages``: this one's name and page."""
        return self._own, self._own_page()

    def measured(self, told: dict[str, int]) -> GatewayReport:
        """Answer another gateway's ``learn``.

        Args:
            told: How much each gateway has told the one that asks.
        """
        return self._latencies.report(self._own, told.get(self._own, 0))

    async def _ask(self, method: str, *arguments: object, within_s: float) -> list[Any]:
        if self._is_alone:
            return []
        try:
            return await self._application.ask_all(method, *arguments, within_s=within_s)
        except NO_ANSWER:
            return []
