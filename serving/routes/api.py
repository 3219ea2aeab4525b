"""Builds the HTTP application; the gateway and every replica mount the same routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Depends, FastAPI, Response

from serving import __version__
from serving.metrics import CONTENT_TYPE, EdgeMetrics, Labels
from serving.routes import health, inference, models, open_inference, rerank
from serving.routes.console import console_router, read_files
from serving.routes.edge import Edge
from serving.routes.error_responses import add_error_handlers
from serving.routes.generation import routes as generation
from serving.routes.generation import tokenizing
from serving.routes.path_choice import PREFIX, check_path_choice
from serving.routes.services import Services
from serving.routes.unforeseen_errors import UnforeseenErrors

METRICS_PATH = "/metrics"


def build_replica_api(services: Services, metrics: EdgeMetrics) -> Edge:
    """Build the application of the direct path, mounted below ``/{model}/{variant}``."""
    assert services.fixed is not None
    app = _new_app(services)
    _add_routes(app)
    model, variant = services.fixed
    labels = Labels(model, variant, services.catalog[model].task)
    return Edge(app, services.server, metrics, health.health_paths([""]), labels)


def build_gateway_api(
    services: Services, metrics: EdgeMetrics, metrics_page: Callable[[], Awaitable[str]]
) -> Edge:
    """Build the application of the selecting path, mounted at ``/``.

    It also answers below ``/{model}/{variant}`` for a variant that has no replica yet, where
    the direct path does not exist.
    """
    app = _new_app(services)
    _add_routes(app)
    _add_routes(app, prefix=PREFIX)
    # SciPy, which no replica needs: a lean one would be a fifth larger.
    from serving.routes import auto, compare, live, quality, reports

    for room in (quality, compare, auto, live, reports):
        app.include_router(room.router)
    files = read_files()
    app.include_router(console_router(files))

    @app.get(METRICS_PATH, tags=["metrics"])
    async def metrics_of_all() -> Response:
        """Prometheus text of the whole service."""
        return Response(await metrics_page(), media_type=CONTENT_TYPE)

    catalog = services.catalog
    variants = [f"/{model}/{variant}" for model in catalog for variant in catalog[model].variants]
    open_paths = {*files, METRICS_PATH, *health.health_paths(["", *variants])}
    return Edge(app, services.server, metrics, open_paths)


def _new_app(services: Services) -> FastAPI:
    app = FastAPI(
        title="quantserve",
        version=__version__,
        summary="One endpoint, every precision.",
        redoc_url=None,
        redirect_slashes=False,
        # It would look for exporters at every request, and there are none: see metrics/.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.services = services
    add_error_handlers(app)
    app.add_middleware(UnforeseenErrors)
    return app


def _add_routes(app: FastAPI, prefix: str = "") -> None:
    for room in (inference, rerank, generation, tokenizing, models, open_inference, health):
        app.include_router(
            room.router,
            prefix=prefix,
            include_in_schema=not prefix,
            dependencies=[Depends(check_path_choice)] if prefix else [],
        )
