"""Names that preparing and opening agree upon."""

from __future__ import annotations

MODEL = "model.gguf"
"""The one file of an artifact's weights."""

WINDOW_KEY = "quantserve.attention_window"
"""Entry of a file's header: most tokens of a sequence for which its answers are the model's, where
the model slides a window that llama.cpp does not know."""
