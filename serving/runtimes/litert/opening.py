"""Open what ``preparing`` wrote."""

from __future__ import annotations

from pydantic import ValidationError

from serving.errors import ConfigError, MayPass
from serving.machine.kernel_threads import threads_of
from serving.runtimes.litert.encoder import LiteRtEncoder
from serving.runtimes.litert.graph_files import FACTS, GRAPH, GraphFacts
from serving.runtimes.litert.interpreters import RowInterpreter
from serving.seams import EncoderEngine, OpenRequest


def open_encoder(request: OpenRequest) -> EncoderEngine:
    """Make the engine.

    Raises:
        ConfigError: The artifact is damaged.
        MayPass: It cannot be read or opened now.
    """
    file, graph = request.folder / FACTS, request.folder / GRAPH
    try:
        facts = GraphFacts.model_validate_json(file.read_bytes())
        size = graph.stat().st_size
    except OSError as error:
        raise MayPass(f"{error.filename}: it cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(f"{file}: it cannot be read: {error}") from error
    if size != facts.file_bytes:
        raise ConfigError(f"{graph}: it has {size} bytes, not {facts.file_bytes}")
    interpreter, threads = threads_of(lambda: RowInterpreter(graph, request.threads))
    return LiteRtEncoder(interpreter, threads, facts, request.head)
