"""The bodies and routes of requests in OpenAI's form."""

from __future__ import annotations

import os
from typing import Any

import orjson

from loadtests.inputs import Input
from loadtests.plan import GENERATING, Operation, Scenario
from serving.errors import ConfigError

ROUTES: dict[Operation, str] = {
    "embeddings": "/v1/embeddings",
    "classify": "/v1/classify",
    "completions": "/v1/completions",
    "chat": "/v1/chat/completions",
}

KEY_VARIABLE = "QUANTSERVE_SERVER__API_KEY"

DEFAULTS: dict[Operation, dict[str, Any]] = {
    # As OpenAI's own client asks.
    "embeddings": {"encoding_format": "base64"},
    "classify": {},
    # The most probable token each time, so that variants' texts can be compared.
    "completions": {"temperature": 0},
    "chat": {"temperature": 0},
}


def make_body(scenario: Scenario, model_name: str, given: Input) -> bytes:
    """The JSON of one request.

    Raises:
        ConfigError: The messages of a chat are given to another operation.
    """
    body = {"model": model_name, **DEFAULTS[scenario.operation], **scenario.body}
    if scenario.operation in GENERATING:
        body["stream"] = scenario.is_streamed
    if scenario.is_streamed:
        body.setdefault("stream_options", {"include_usage": True})
    if scenario.operation == "chat":
        text = [{"role": "user", "content": given}]
        body["messages"] = text if isinstance(given, str) else list(given)
    elif isinstance(given, str):
        body["prompt" if scenario.operation == "completions" else "input"] = given
    else:
        raise ConfigError(
            f"scenario {scenario.name!r}: inputs with messages are for chat, "
            f"not for {scenario.operation}"
        )
    return orjson.dumps(body)


def headers() -> dict[str, str]:
    """Of every request; with the key of the environment variable, if it is set."""
    key = os.environ.get(KEY_VARIABLE)
    said = {"Content-Type": "application/json"}
    return {**said, "Authorization": f"Bearer {key}"} if key else said
