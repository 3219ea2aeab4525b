"""Asks the variant that was chosen."""

from __future__ import annotations

from fastapi import Request

from serving.errors import InvalidField
from serving.routes.record import record_of
from serving.routes.services import services_of
from serving.seams import NO_OPTIONS, AnswerOptions, InferenceRequest, Input, Outcome, ServedModel


async def answer(
    request: Request,
    model: ServedModel,
    variant: str,
    inputs: tuple[Input, ...],
    *,
    truncate: bool,
    options: AnswerOptions = NO_OPTIONS,
    field: str = "input",
    token_ids: tuple[tuple[int, ...], ...] = (),
) -> Outcome:
    """Ask an encoder for a row per input, and note the time in the record.

    Args:
        request: Whose record it is.
        model: What was chosen; likewise the variant.
        variant: See ``model``.
        inputs: One answer each.
        truncate: See ``InferenceRequest``; likewise ``options``.
        options: See ``truncate``.
        field: Where the body has the inputs, for messages.
        token_ids: See ``InferenceRequest``.

    Raises:
        RequestError: Anything that ``EncoderBackend.infer`` raises.
        InvalidField: There are too many inputs.
        BodyTooSlow: No time is left, or ``DeadlineExceeded``; see ``Record.time_left``.
    """
    services = services_of(request)
    if (count := len(inputs) + len(token_ids)) > services.server.max_inputs:
        raise InvalidField(
            f"{count} inputs; at most {services.server.max_inputs} in one request",
            param=field,
        )
    record = record_of(request)
    asked = InferenceRequest(
        inputs,
        truncate,
        options,
        record.time_left(services.server.request_timeout_s),
        token_ids=token_ids,
    )
    record.is_asked = True
    try:
        outcome = await services.backends.encoder(model.name, variant).infer(asked)
    except InvalidField as error:
        raise _named(error, field) from None
    timings = outcome.timings
    record.phases = {
        "queue": timings.queue,
        "tokenize": timings.tokenize,
        "core_wait": timings.core_wait,
        "forward": timings.forward,
    }
    return outcome


def _named(error: InvalidField, field: str) -> InvalidField:
    """Call an input as the body does."""
    if error.param != "input":
        return error
    return type(error)(str(error).replace("input[", f"{field}[", 1), param=field)
