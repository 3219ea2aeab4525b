"""What makes many small engines quick to load."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(scope="session", autouse=True)
def _short_collections() -> None:
    """Every load collects garbage; without this, each time among all objects of the libraries."""
    gc.freeze()
