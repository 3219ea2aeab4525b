"""The Ray Serve deployment of the gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ray import serve

from serving.config import AUTO, Config
from serving.gateway.auto import AutoRouter
from serving.gateway.cluster import Cluster
from serving.gateway.elsewhere import GatewayReport
from serving.gateway.latencies import Latencies
from serving.gateway.live import Live
from serving.gateway.other_gateways import OtherGateways
from serving.gateway.quality_board import RemoteQuality
from serving.gateway.remote_variants import RemoteVariants
from serving.metrics import (
    EdgeMetrics,
    GatewayMetrics,
    Labels,
    ScrapeMetrics,
    exposition,
    merge_expositions,
)
from serving.routes.api import build_gateway_api
from serving.routes.catalog import served_model
from serving.routes.edge import Edge
from serving.routes.services import Services
from serving.uvicorn_ticks import slow_down_uvicorn


@serve.ingress()
class Gateway:
    """Resolves model and variant of a request and forwards it to a replica.

    Args:
        config: What is served.
        folder: Where relative paths in it begin.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        slow_down_uvicorn()
        catalog = {model.name: served_model(model) for model in config.models}
        self._cluster = Cluster(
            [(model.name, variant) for model in catalog.values() for variant in model.variants]
        )
        self._quality = RemoteQuality()
        replica = serve.get_replica_context().replica_id.unique_id
        latencies = Latencies()
        self._gateways = OtherGateways(
            replica, config.server.gateways == 1, latencies, self._counted_page
        )
        self._live = Live(self._cluster, self._quality, self._gateways.pages)
        services = Services(
            catalog,
            RemoteVariants(self._cluster, latencies),
            config.server,
            board=self._quality,
            chooser=AutoRouter(
                config.models,
                self._cluster.statuses,
                latencies,
                self._quality,
                self._gateways.learn,
            ),
            live=self._live,
            reports=folder / Path(config.reports.folder).expanduser(),
        )
        self._edge_metrics = EdgeMetrics(replica)
        for model in catalog.values():
            for variant in model.variants:
                self._edge_metrics.start(Labels(model.name, variant, model.task))
            # What no variant is found for.
            self._edge_metrics.start(Labels(model.name, AUTO, model.task), [503])
        self._gateway_metrics = GatewayMetrics(replica, config.server.max_requests_under_way)
        self._scrape_metrics = ScrapeMetrics(replica)
        self._edge = build_gateway_api(services, self._edge_metrics, self._metrics_page)

    def __serve_build_asgi_app__(self) -> Edge:
        return self._edge

    async def in_flight(self) -> int:
        """HTTP requests that this gateway has not answered yet; who listens waits for none."""
        return self._edge.in_flight - self._live.listeners

    async def counted(self) -> tuple[str, str]:
        """See ``OtherGateways.counted``."""
        return self._gateways.counted()

    async def measured(self, told: dict[str, int]) -> GatewayReport:
        """See ``OtherGateways.measured``."""
        return self._gateways.measured(told)

    def _counted_page(self) -> str:
        self._gateway_metrics.observe(self._edge.in_flight)
        return exposition([self._edge_metrics.registry, self._gateway_metrics.registry])

    async def _metrics_page(self) -> str:
        variants, quality, gateways = await asyncio.gather(
            self._cluster.metrics_pages(), self._quality.metrics_page(), self._gateways.pages()
        )
        pages = gateways if quality is None else [*gateways, quality]
        for variant in variants:
            self._scrape_metrics.observe(
                variant.model, variant.variant, variant.running, len(variant.pages)
            )
            pages.extend(variant.pages)
        running = await self._cluster.running_gateways()
        self._scrape_metrics.observe_gateways(running, len(gateways))
        self._scrape_metrics.observe_controller(self._cluster.states_age_s)
        return merge_expositions([exposition([self._scrape_metrics.registry]), *pages])
