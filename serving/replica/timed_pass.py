"""An ordinary pass of a variant, through its own backend, that nobody waits for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing

from serving.errors import InternalError
from serving.seams import (
    NO_OPTIONS,
    EncoderBackend,
    GenerationSummary,
    GeneratorBackend,
    InferenceRequest,
    background_request,
)
from serving.tasks import TASKS

INPUTS = 8
"""Of an encoder's pass: a batch as it forms under load."""

TOKENS = 8
ANSWER_S = 60.0


def timed_pass(
    task: str, backend: EncoderBackend | GeneratorBackend
) -> Callable[[], Awaitable[float]]:
    """Return what runs an encoder's pass, or a generator's steps for one sequence.

    It returns the seconds of the pass, or of one step, without any waiting, and raises
    ``RequestError`` while the replica has other work.
    """
    probes = TASKS[task].read_probes(None)[:INPUTS]
    if isinstance(backend, EncoderBackend):
        encoder, asked = backend, InferenceRequest(tuple(probes), True, NO_OPTIONS, ANSWER_S, True)

        async def encode() -> float:
            return (await encoder.infer(asked)).timings.forward

        return encode
    generator = backend
    request = background_request(str(probes[0]), TOKENS, ANSWER_S)

    async def generate() -> float:
        # The place of one that is left to the garbage collector is not free for the next.
        async with aclosing(generator.stream(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, GenerationSummary):
                    # The first token belongs to the prompt.
                    return piece.timings.decode / max(piece.output_tokens - 1, 1)
        raise InternalError("the answer broke off")

    return generate
