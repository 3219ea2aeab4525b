"""What requests may not ask of a generator on a GPU."""

from __future__ import annotations

from serving.errors import InvalidField
from serving.runtimes.torch.cuda.token_chooser import MAX_TOP_LOGPROBS
from serving.seams import TokenRequest

NOT_SUPPORTED = {"min_p": 0, "repetition_penalty": 1, "logit_bias": ()}
"""Fields of ``Sampling`` that are not built here, with the values that do nothing."""


def check_supported(request: TokenRequest) -> None:
    """Raise ``InvalidField`` for what a request asks that is not built here; names the field."""
    if (request.sampling.logprobs or 0) > MAX_TOP_LOGPROBS:
        raise InvalidField(
            f"on a GPU this server gives the {MAX_TOP_LOGPROBS} most probable tokens at most; "
            f"{request.sampling.logprobs} were asked for",
            param="logprobs",
        )
    for field, without in NOT_SUPPORTED.items():
        if getattr(request.sampling, field) != without:
            raise InvalidField(f"on a GPU this server has no {field}; leave it out", param=field)
    if request.sampling.grammar is not None:
        raise InvalidField(
            "on a GPU this server cannot hold answers to a form: leave out response_format, tools "
            "that are strict, and a tool_choice that requires a call",
            param="response_format",
        )
