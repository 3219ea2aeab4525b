"""Estimates of what the quantizer makes, against what it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from serving.checkpoint import weight_shapes
from serving.runtimes.llamacpp.artifact_files import MODEL
from serving.runtimes.llamacpp.mixtures import MIXTURES, mixed_bytes
from serving.runtimes.llamacpp.preparing import prepare_generator
from tests.matrix import pairs
from tests.unit.runtimes.tiny_generators import MODELS, prepare_request, save_generator

WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 8, "head_dim": 32}
"""Rows of whole blocks of 256, and enough layers for some to get more bits."""

MODELS_HERE: dict[str, dict[str, Any]] = {
    "tied": {**MODELS["llama"], **WIDE},
    "untied": {**MODELS["llama-untied"], **WIDE},
    "narrow": MODELS["llama-untied"],
    "fused": {
        **{name: WIDE[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")},
        "model_type": "phi3",
        "sliding_window": None,
        "original_max_position_embeddings": 256,
    },
}


@pytest.mark.parametrize(("recipe", "name"), pairs(MIXTURES, MODELS_HERE))
def test_the_estimate_is_the_size(tmp_path: Path, name: str, recipe: str) -> None:
    checkpoint = save_generator(tmp_path / "checkpoint", **MODELS_HERE[name])
    (tmp_path / "artifact").mkdir()
    made = prepare_generator(prepare_request(recipe, checkpoint, tmp_path / "artifact"))
    tensors = GGUFReader(tmp_path / "artifact" / MODEL).tensors
    written = sum(int(t.n_bytes) for t in tensors if not t.name.startswith("rope_"))
    assert mixed_bytes(recipe, weight_shapes(checkpoint)) == written
    assert made.weights_bytes == pytest.approx(written, rel=1e-3)
