"""Open what ``preparing`` wrote: a graph that is optimized already, on mapped weights."""

from __future__ import annotations

from onnxruntime import GraphOptimizationLevel

from serving.machine.kernel_threads import threads_of
from serving.runtimes.onnxruntime.encoder import OnnxEncoder
from serving.runtimes.onnxruntime.graph_files import GRAPH
from serving.runtimes.onnxruntime.sessions import open_session, session_options
from serving.seams import EncoderEngine, OpenRequest


def open_encoder(request: OpenRequest) -> EncoderEngine:
    """Make the engine.

    Raises:
        MayPass: The artifact cannot be opened now.
    """
    options = session_options(request.threads)
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    session, threads = threads_of(lambda: open_session(request.folder / GRAPH, options))
    return OnnxEncoder(session, threads, request.head)
