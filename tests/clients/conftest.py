"""One service for all clients, and an environment for each kind of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.clients.configuration import write_configuration
from tests.clients.environments import LISTS, EnvironmentMissing, python_of
from tests.integration.running_service import RunningService, running_service

collect_ignore = ["within"]
"""For the environments' own pytest."""


@pytest.fixture(scope="package")
def interpreters() -> Mapping[str, Path]:
    """The interpreter of each environment, by its name; without a network this fails."""
    try:
        return {wanted.stem: python_of(wanted.stem) for wanted in sorted(LISTS.glob("*.in"))}
    except EnvironmentMissing as error:
        reason = str(error)
    pytest.fail(reason, pytrace=False)


@pytest.fixture(scope="package")
def service(
    interpreters: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    """The demo in a few variants; not started before every environment is there."""
    folder = tmp_path_factory.mktemp("clients")
    with running_service(write_configuration(folder), folder / "service.log") as running:
        assert running.not_ready() == []
        yield running
