"""What the clients' tests share. They run in the environments of the clients, one process each."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def url() -> str:
    """Address of the running service."""
    return os.environ["QUANTSERVE_URL"]
