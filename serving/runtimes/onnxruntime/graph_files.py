"""Names that preparing and opening agree upon."""

from __future__ import annotations

GRAPH = "model.onnx"
"""The graph, as ONNX Runtime wrote it after it had optimized it."""

WEIGHTS = "model.data"
"""The graph's numbers, in the forms in which they are kept in memory."""

OUTPUT = "output"
"""The graph's only output: last hidden states, or logits."""

WEIGHTS_BYTES = "weights_bytes"
"""Entry of the graph's own metadata: size of its numbers, each in one form."""
