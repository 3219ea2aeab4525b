"""Requests that schemathesis makes of the OpenAPI document, right ones and wrong ones.

Of its own accord it names models that nobody serves. Here two in three have the names of the demo,
in the path and in the body, so that most reach a model; and continuations are short.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from tests.fuzz.requests_that_are_right import GENERATOR
from tests.fuzz.verdict import fault

Http = Any
"""httpx's client of a service that runs, or starlette's of its routes in this process."""

NAMES = ("minilm", "minilm:int4", "sentiment:bf16", GENERATOR, "minilm:auto")
PATH_NAMES = {
    "model": ("minilm", "sentiment", "smollm2"),
    "name": ("minilm", "sentiment", "smollm2"),
    "variant": ("int4", "bf16", "fp32"),
    "version": ("int4", "bf16", "fp32"),
}
STREAMS = ("/v1/live",)
"""Without an end."""

SLOW = ("/v1/quality/evaluate",)
"""Work of minutes, in the background of all that follows."""

TIMEOUT_S = 60
MAX_TOKENS = 2


@dataclass
class Found:
    """What came of it.

    Attributes:
        counts: Answers by their status.
        faults: What was wrong, with the request.
    """

    counts: dict[int, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def operations(document: dict[str, Any]) -> list[Any]:
    """The operations of a document that end by themselves."""
    schema = schemathesis.openapi.from_dict(document)
    schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    found: list[Any] = [one.ok() for one in schema.get_all_operations() if isinstance(one, Ok)]
    return [one for one in found if not one.path.endswith((*STREAMS, *SLOW))]


def ask_all(
    http: Http, prefix: str, document: dict[str, Any], cases: int, seed: int, found: Found
) -> None:
    """Send so many requests, spread over the operations of a document.

    Args:
        http: Client of the service, with its key.
        prefix: Before every path: of a replica on the direct path.
        document: OpenAPI.
        cases: How many, about.
        seed: Of the requests.
        found: Gets what comes of them.
    """
    wanted = operations(document)
    for operation in wanted:
        _ask(http, prefix, operation, max(1, cases // len(wanted)), seed, found)


def _ask(http: Http, prefix: str, operation: Any, cases: int, seed: int, found: Found) -> None:
    right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    try:
        wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
        strategy = right | wrong
        strategy.validate()
    except Exception:  # an operation without parameters cannot be asked wrongly
        strategy = right

    @seeded(seed)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy, names=st.integers(0, 2**32))
    def ask(case: Any, names: int) -> None:
        _send(http, prefix, case, names, found)

    try:
        ask()
    except Exception as error:  # schemathesis cannot make a wrong request of every operation
        if "Unsatisfiable" not in type(error).__name__:
            raise


def _send(http: Http, prefix: str, case: Any, names: int, found: Found) -> None:
    _name_what_is_served(case, names)
    given_ = case.as_transport_kwargs(base_url=str(http.base_url).rstrip("/") + prefix)
    what = {
        key: given_[key]
        for key in ("method", "url", "params", "headers", "json", "data")
        if key in given_
    }
    try:
        request = http.build_request(
            given_["method"],
            given_["url"],
            params=given_.get("params"),
            headers={
                name: value
                for name, value in (given_.get("headers") or {}).items()
                if isinstance(value, str) and value.isprintable() and value.isascii()
            },
            **(
                {"json": given_["json"]}
                if "json" in given_
                else {"content": _bytes(given_.get("data"))}
            ),
        )
    except (TypeError, ValueError, httpx.InvalidURL):  # no client could send it
        return
    request.headers["Authorization"] = http.headers["Authorization"]
    try:
        answer = http.send(request)
    except httpx.TimeoutException:
        found.faults.append(f"no answer in {TIMEOUT_S} s to {what}")
        return
    except httpx.InvalidURL:
        return
    except (httpx.LocalProtocolError, UnicodeError):
        return
    found.counts[answer.status_code] = found.counts.get(answer.status_code, 0) + 1
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if (wrong := fault(answer.status_code, headers, answer.content)) is not None:
        found.faults.append(f"{wrong} to {what}")


def _bytes(data: Any) -> bytes | None:
    if data is None or isinstance(data, bytes):
        return data
    return data.encode("utf-8", "surrogatepass") if isinstance(data, str) else repr(data).encode()


def _name_what_is_served(case: Any, names: int) -> None:
    if names % 3:
        for name, known in PATH_NAMES.items():
            if name in (case.path_parameters or {}):
                case.path_parameters[name] = known[names // 3 % len(known)]
    body = case.body
    if not isinstance(body, dict):
        return
    if names % 3 and "model" in body:
        body["model"] = NAMES[names // 3 % len(NAMES)]
    if "prompt" in body or "messages" in body:
        for name in ("max_tokens", "max_completion_tokens"):
            # What is no number stays: it is to be refused.
            if not isinstance(body.get(name, 1), int) or isinstance(body.get(name), bool):
                return
        body.pop("max_completion_tokens", None)
        body["max_tokens"] = min(body.get("max_tokens", MAX_TOKENS), MAX_TOKENS)
