"""Prometheus's own tool."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def promtool() -> str:
    """Its path."""
    found = shutil.which("promtool")
    if found is None:
        message = "promtool is missing: apt-get install prometheus"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found
