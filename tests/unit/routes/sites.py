"""Both mounts of the routes over fakes, with a client for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx
from httpx import ASGITransport

from serving.config import ServerConfig
from serving.metrics import EdgeMetrics, Labels
from serving.routes.api import build_gateway_api, build_replica_api
from serving.routes.edge import Edge
from serving.routes.services import Services
from serving.seams import GeneratorBackend, ServedModel, VariantChooser
from tests.unit.fakes.backends import FakeBackends, FakeEncoderBackend, served_model
from tests.unit.generation_fakes import EchoBackend

MINILM = served_model("minilm", "embeddings", ["fp32", "bf16", "int4"], "bf16", "fp32")
SENTIMENT = served_model("sentiment", "classification", ["fp32", "int4"], "fp32", "fp32")
SMOLLM2 = served_model("smollm2", "generation", ["fp32", "int4"], "fp32", "fp32")
MODELS = (MINILM, SENTIMENT)
METRICS_PAGE = "# HELP x x\n# TYPE x gauge\nx 1\n"

EMBEDDINGS = "/v1/embeddings"
CLASSIFY = "/v1/classify"


def embeddings_body(**changes: Any) -> dict[str, Any]:
    """A good body of ``POST /v1/embeddings`` for a variant that is no default."""
    return {"model": "minilm:int4", "input": "a cat", **changes}


def infer_body(*texts: str, **changes: Any) -> dict[str, Any]:
    """A good body of the Open Inference Protocol."""
    data = list(texts) or ["a cat"]
    tensor = {"name": "text", "shape": [len(data)], "datatype": "BYTES", "data": data}
    return {"inputs": [tensor], **changes}


class SiteBackends(FakeBackends):
    """Generators say back what they were asked."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        super().__init__(models)
        self.echoes = {name: EchoBackend(":".join(name)) for name in self.generators}

    def generator(self, model: str, variant: str) -> GeneratorBackend:
        return self.echoes[model, variant]


@dataclass(frozen=True)
class Site:
    """One mount of the routes."""

    edge: Edge
    client: httpx.AsyncClient
    backends: FakeBackends
    metrics: EdgeMetrics

    def backend(self, model: str = "minilm", variant: str = "int4") -> FakeEncoderBackend:
        """The fake behind one variant of an encoder."""
        return self.backends.encoders[model, variant]

    def counted(self) -> dict[tuple[Labels, str], float]:
        """Requests so far, by labels and status."""
        return {
            (Labels(s.labels["model"], s.labels["variant"], s.labels["operation"]), status): s.value
            for family in self.metrics.registry.collect()
            for s in family.samples
            if s.name == "quantserve_requests_total" and (status := s.labels["status"])
        }

    def timed(self) -> float:
        """Requests so far whose duration was noted."""
        return sum(
            sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "quantserve_request_duration_seconds_count"
        )


def open_gateway(
    models: Sequence[ServedModel] = MODELS, chooser: VariantChooser | None = None, **server: Any
) -> Site:
    """The selecting path over every model."""
    backends, metrics = SiteBackends(models), EdgeMetrics("gateway-1")

    async def metrics_page() -> str:
        return METRICS_PAGE

    catalog = {model.name: model for model in models}
    services = Services(catalog, backends, ServerConfig(**server), chooser=chooser)
    edge = build_gateway_api(services, metrics, metrics_page)
    return Site(edge, _client(edge, ""), backends, metrics)


def open_replica(model: ServedModel = MINILM, variant: str = "int4", **server: Any) -> Site:
    """The direct path to one variant, mounted as Ray Serve mounts it."""
    form = {variant: model.variants[variant]}
    served = replace(model, variants=form, default_variant=variant, reference=variant)
    backends, metrics = SiteBackends([served]), EdgeMetrics("replica-1")
    services = Services(
        {model.name: served}, backends, ServerConfig(**server), (model.name, variant)
    )
    edge = build_replica_api(services, metrics)
    return Site(edge, _client(edge, f"/{model.name}/{variant}"), backends, metrics)


def _client(edge: Edge, root_path: str) -> httpx.AsyncClient:
    transport = ASGITransport(edge, root_path=root_path)
    return httpx.AsyncClient(transport=transport, base_url=f"http://quantserve{root_path}")
