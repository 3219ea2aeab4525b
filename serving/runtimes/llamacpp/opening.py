"""Open a generator of its artifact: a GGUF file behind slots."""

from __future__ import annotations

from serving.generator import SlotGenerator
from serving.runtimes.llamacpp.artifact_files import MODEL
from serving.runtimes.llamacpp.decoder import LlamaCppDecoder
from serving.seams import Decoder, GeneratorEngine, OpenGeneratorRequest


def open_generator(request: OpenGeneratorRequest) -> GeneratorEngine:
    """Start the generator that ``preparing.prepare_generator`` wrote.

    Raises:
        ConfigError: llama.cpp cannot read it on this machine.
    """
    return SlotGenerator(
        lambda: open_decoder(request),
        request.cores,
        request.max_waiting,
        stuck_after_s=request.stuck_after_s,
    )


def open_decoder(request: OpenGeneratorRequest) -> Decoder:
    """Open the model alone, in the thread that will run it; raises as its caller says."""
    return LlamaCppDecoder(
        request.folder / MODEL,
        num_slots=request.max_running,
        slot_tokens=request.max_tokens,
        threads=request.threads,
    )
