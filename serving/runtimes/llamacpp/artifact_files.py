"""Names that preparing and opening agree upon."""

from __future__ import annotations

MODEL = "model.gguf"
"""The one file of an artifact's weights."""
