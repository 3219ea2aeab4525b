"""The demo service, once for all tests that only ask it, by HTTP or through the console."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

import serving.runtimes.openvino  # noqa: F401 - before OpenVINO itself, which would call home
from tests.integration.demo_service import AUTHORIZED, demo_service
from tests.integration.running_service import RunningService


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that ask the demo: others have services of their own, and no room for it."""
    for item in items:
        if "demo" in getattr(item, "fixturenames", ()):
            item.add_marker("demo")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The demo's models in all their variants."""
    with demo_service(tmp_path_factory.mktemp("demo")) as service:
        yield service


@pytest.fixture(scope="session")
def client(demo: RunningService) -> Iterator[httpx.Client]:
    """An HTTP client of the demo, with its key."""
    with httpx.Client(base_url=demo.url, timeout=60, headers=AUTHORIZED) as client:
        yield client
