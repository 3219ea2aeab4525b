"""What makes many small engines quick to load."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from serving.runtimes.llamacpp import conversion
from tests.unit.runtimes.llamacpp.conversions import KeptConversions


@pytest.fixture(scope="session", autouse=True)
def _short_collections() -> None:
    """Every load collects garbage; without this, each time among all objects of the libraries."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _kept_conversions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Artifacts of one checkpoint on llama.cpp in several recipes are made of one conversion."""
    kept = KeptConversions(tmp_path_factory.mktemp("conversions"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "convert", kept.convert)
        yield
