"""Both mounts of the routes over a model that generates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.unit.generation_fakes import EchoBackend
from tests.unit.routes.sites import (
    MODELS,
    SMOLLM2,
    Site,
    SiteBackends,
    open_gateway,
    open_replica,
)

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
ROUTES = (COMPLETIONS, CHAT)


def completions_body(**changes: Any) -> dict[str, Any]:
    """A good body of ``POST /v1/completions`` for a variant that is no default."""
    return {"model": "smollm2:int4", "prompt": "a cat", **changes}


def chat_body(**changes: Any) -> dict[str, Any]:
    """A good body of ``POST /v1/chat/completions``."""
    messages = [{"role": "user", "content": "a cat"}]
    return {"model": "smollm2:int4", "messages": messages, **changes}


def body_of(route: str, **changes: Any) -> dict[str, Any]:
    """A good body of either route."""
    return completions_body(**changes) if route == COMPLETIONS else chat_body(**changes)


@dataclass(frozen=True)
class GeneratorSite:
    """A mount of the routes, and the fake behind smollm2:int4."""

    site: Site
    fake: EchoBackend
    root_path: str

    async def post(self, route: str, **changes: Any) -> httpx.Response:
        """Send a good body with ``changes``."""
        return await self.site.client.post(route, json=body_of(route, **changes))

    async def events(self, route: str, **changes: Any) -> list[Any]:
        """Send a good body and return the events of the stream, JSON decoded but the last."""
        return events_of(await self.post(route, **{"stream": True, **changes}))


def events_of(response: httpx.Response) -> list[Any]:
    """The events of a whole stream; ``[DONE]`` as it is."""
    assert response.status_code == 200, response.text
    assert response.text.endswith("\n\n")
    lines = response.text.removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") for line in lines)
    data = [line.removeprefix("data: ") for line in lines]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


def open_generator_gateway(**server: Any) -> GeneratorSite:
    """The selecting path over every model."""
    return _over(open_gateway((*MODELS, SMOLLM2), **server), "")


def open_generator_replica(**server: Any) -> GeneratorSite:
    """The direct path to smollm2:int4."""
    return _over(open_replica(SMOLLM2, **server), "/smollm2/int4")


def _over(site: Site, root_path: str) -> GeneratorSite:
    assert isinstance(site.backends, SiteBackends)
    return GeneratorSite(site, site.backends.echoes["smollm2", "int4"], root_path)


OpenGenerator = Callable[..., GeneratorSite]


@pytest.fixture(params=[open_generator_gateway, open_generator_replica], ids=["gateway", "replica"])
def open_generator(request: pytest.FixtureRequest) -> OpenGenerator:
    """Opens either mount with settings of the server; each test runs for both."""
    opener: OpenGenerator = request.param
    return opener


@pytest.fixture
def generator(open_generator: OpenGenerator) -> GeneratorSite:
    """Either mount; each test runs for both."""
    return open_generator()


@pytest.fixture
def replica_generator() -> GeneratorSite:
    """The direct path only, for what the mount cannot change."""
    return open_generator_replica()


@pytest.fixture
def gateway_generator() -> GeneratorSite:
    """The selecting path only, where there are other models too."""
    return open_generator_gateway()
