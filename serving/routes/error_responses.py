"""The one place that turns an error into an HTTP answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from serving.errors import (
    InvalidField,
    Malformed,
    MethodNotAllowed,
    RequestError,
    Unauthorized,
    Unknown,
)
from serving.routes.json_response import json_response


def error_response(error: RequestError, path: str) -> Response:
    """Render an error in the shape that the route's protocol has."""
    content = {"error": error.message} if is_open_inference(path) else openai_error(error)
    response = json_response(content, error.status)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def openai_error(error: RequestError) -> dict[str, Any]:
    """OpenAI's error object, which is also the last event of a stream that fails."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "code": error.code,
            "param": error.param,
        }
    }


def is_open_inference(path: str) -> bool:
    """Whether a path belongs to the Open Inference Protocol, as all below /v2 but Cohere's do."""
    return "/v2/" in f"{path}/" and not path.endswith("/v2/rerank")


def add_error_handlers(app: FastAPI) -> None:
    """Make ``app`` answer every expected error in quantserve's shape."""

    @app.exception_handler(RequestError)
    def _expected(request: Request, error: RequestError) -> Response:
        return error_response(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> Response:
        return error_response(_explain(error), request.url.path)

    @app.exception_handler(HTTPException)
    def _no_route(request: Request, error: HTTPException) -> Response:
        route = f"{request.method} {request.url.path}"
        mapped: RequestError
        headers = {}
        match error.status_code:
            case 404:
                mapped = Unknown(f"no route {route}; see /docs")
            case 405:
                allowed = ", ".join(_methods_of(request))
                mapped = MethodNotAllowed(f"{route}: this route takes {allowed}; see /docs")
                headers["Allow"] = allowed
            case _:
                mapped = Malformed(f"{route}: {error.detail}")
        response = error_response(mapped, request.url.path)
        response.headers.update(headers)
        return response


def _methods_of(request: Request) -> list[str]:
    """Every method that some route has for the path of a request."""
    known = [
        method
        for method in ("GET", "POST")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]
    # The edge turns HEAD into GET.
    return sorted([*known, "HEAD"]) if "GET" in known else known


def _explain(error: RequestValidationError) -> RequestError:
    problems = error.errors()
    if problems[0]["type"] == "json_invalid":
        return Malformed(f"the body is not JSON: {problems[0]['ctx']['error']}")
    if problems[0]["loc"] == ("body",):
        return Malformed("expected a JSON object with Content-Type: application/json")
    by_field: dict[str, list[Any]] = {}
    for problem in problems:
        by_field.setdefault(str(problem["loc"][1]), []).append(problem)
    messages = [_in_words(_most_telling(of_field)) for of_field in by_field.values()]
    return InvalidField("; ".join(messages), param=next(iter(by_field)))


def _most_telling(problems: Sequence[Any]) -> Any:
    """The first problem of a field; a union has one per member, not all of which were meant.

    "No string" is none where a list was sent and there is something else to say of it.
    """
    meant = [p for p in problems if p["type"] != "string_type" or not isinstance(p["input"], list)]
    return [*meant, problems[-1]][0]


def _in_words(problem: Any) -> str:
    what = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        what = "unknown field"
    return f"{_place(problem['loc'][1:])}: {what}"


def _place(parts: tuple[str | int, ...]) -> str:
    """Write ``("inputs", 0, "data", "list[str]", 1)`` as ``inputs[0].data[1]``."""
    place = ""
    for part in parts:
        if isinstance(part, int):
            place += f"[{part}]"
        elif part.isidentifier() and part != "str":  # anything else names a member of a union
            place += f".{part}"
    return place.removeprefix(".")
