"""A database in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from serving.monitor.evidence.schema import open_memory


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    """Empty tables."""
    db = open_memory()
    yield db
    db.close()
