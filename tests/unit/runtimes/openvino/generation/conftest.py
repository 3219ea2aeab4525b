"""Decoders of tiny models, each prepared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.runtimes.openvino.generation.opening import open_decoder
from serving.runtimes.openvino.generation.paged_decoder import PagedDecoder
from serving.runtimes.openvino.generation.preparing import prepare_generator
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    open_request,
    prepare_request,
    save_generator,
)

Artifact = Callable[[str, str], Path]
Open = Callable[..., PagedDecoder]


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Gives the folder of a recipe's artifact of one of ``MODELS``."""
    root = tmp_path_factory.mktemp("openvino-generation")

    def made(recipe: str, name: str) -> Path:
        folder = root / name / recipe
        if not folder.exists():
            checkpoint = save_generator(root / name / "checkpoint", **MODELS[name])
            folder.mkdir()
            prepare_generator(prepare_request(recipe, checkpoint, folder))
        return folder

    return made


@pytest.fixture(scope="session")
def opened(artifact: Artifact) -> Open:
    """Opens a decoder of one of ``MODELS``, in float32 unless told otherwise."""

    def open_(name: str = "llama", recipe: str = "fp32", **changes: Any) -> PagedDecoder:
        decoder = open_decoder(open_request(recipe, artifact(recipe, name), **changes))
        assert isinstance(decoder, PagedDecoder)
        return decoder

    return open_
