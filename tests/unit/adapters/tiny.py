"""The tiny models of this folder, and the adapters that PEFT made for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
BASES, ADAPTERS = FOLDER / "bases", FOLDER / "made"

GROUP = 64
"""Inputs that share a scale in ``int4``."""

BASE_OF = {
    "llama-every-layer": "llama",
    "llama-patterns": "llama",
    "llama-rank-stabilised": "llama",
    "gpt2": "gpt2",
    "bert-classifier": "bert",
    "bert-body": "bert",
}
"""Of each adapter, the model that it was made for."""

TOKENS = np.random.default_rng(0).integers(1, 64, (3, 24))
"""What models are asked, int64 (texts, tokens)."""
