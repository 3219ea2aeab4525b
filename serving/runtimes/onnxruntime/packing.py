"""Writes a graph as ONNX Runtime runs it: optimized, and weights in the kernels' own order."""

from __future__ import annotations

from pathlib import Path

from onnxruntime import SessionOptions

from serving.runtimes.onnxruntime.graph_files import GRAPH, WEIGHTS
from serving.runtimes.onnxruntime.sessions import open_session, session_options

SLOW_FUSIONS = ("SkipLayerNormFusion", "BiasGeluFusion")
"""Their fused kernels take longer than what they replace."""

SMALLEST_MAPPED_BYTES = 1024


def pack(source: Path, folder: Path, threads: int, *, keep_packed: bool) -> None:
    """Write ``model.onnx`` and ``model.data`` to ``folder``.

    Args:
        source: The graph.
        folder: Where it is written to.
        threads: Intra-op threads of the session that writes it.
        keep_packed: Write weights that a kernel wants in another order so, too: whoever opens the
            graph maps them instead of packing copies of its own, and the file has them twice. A
            machine that wants them otherwise packs its own.

    Raises:
        ConfigError: ONNX Runtime cannot run the graph.
    """
    options: SessionOptions = session_options(threads)
    options.optimized_model_filepath = str(folder / GRAPH)
    for name, value in {
        "session.optimized_model_external_initializers_file_name": WEIGHTS,
        "session.optimized_model_external_initializers_min_size_in_bytes": SMALLEST_MAPPED_BYTES,
        "session.save_external_prepacked_constant_initializers": int(keep_packed),
    }.items():
        options.add_session_config_entry(name, str(value))
    open_session(source, options, without=SLOW_FUSIONS)
