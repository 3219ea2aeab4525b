"""The two mounts of the routes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from serving.routes import request_log
from serving.routes.request_log import logger
from tests.unit.routes.sites import Site, open_gateway, open_replica

OpenSite = Callable[..., Site]


@pytest.fixture
def gateway() -> Site:
    """The selecting path over every model."""
    return open_gateway()


@pytest.fixture
def replica() -> Site:
    """The direct path to minilm:int4."""
    return open_replica()


@pytest.fixture(params=[open_gateway, open_replica], ids=["gateway", "replica"])
def open_site(request: pytest.FixtureRequest) -> OpenSite:
    """Opens either mount with settings of the server; each test runs for both."""
    opener: OpenSite = request.param
    return opener


@pytest.fixture
def site(open_site: OpenSite) -> Site:
    """Either mount; each test runs for both."""
    return open_site()


@pytest.fixture
def log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    """What the edge logs, at once, whether or not Ray Serve has set up the logger above."""
    monkeypatch.setattr(request_log, "MAX_WAITING", 1)
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.setLevel(before[0])
    logger.propagate = before[1]
