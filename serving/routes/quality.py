"""``/v1/quality``: what is known of the variants' quality, and evaluations on labelled data."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from math import isfinite

import orjson
from fastapi import APIRouter, Request, Response

from serving.errors import InvalidField, NotReady, Unknown
from serving.quality.probes import probe_line
from serving.routes.json_response import json_response
from serving.routes.schemas import Body
from serving.routes.selection import find_model
from serving.routes.services import Services, services_of
from serving.seams import QualityBoard

CLOCKS_S = 60.0
"""A client's clock may be so far ahead."""

NUM_STEPS = 48
LEAST_STEP_S = 1.0
"""A span is told in so many equal steps, none of which is shorter."""

router = APIRouter(prefix="/v1/quality", tags=["quality"])


class EvaluateBody(Body):
    """``POST /v1/quality/evaluate``.

    Attributes:
        model: Public name, without a variant: all of them are evaluated.
    """

    model: str


@router.get("")
async def quality(request: Request, model: str | None = None, since: str | None = None) -> Response:
    """Every variant's agreement with the reference, by origin, with intervals and a verdict.

    With ``since`` (seconds since 1970, or a date with or without a time, in UTC unless it says
    otherwise) each model has a ``history``, too: the changes of its verdicts from then on.
    """
    services = services_of(request)
    check_query(request, "model", "since")
    if model is not None:
        model = check_model(services, model)
    begin = None if since is None else read_time(since)
    board = board_of(services)
    data = [asdict(entry) for entry in await board.report() if model in (None, entry.model)]
    if begin is not None:
        history = await board.history(begin)
        for entry in data:
            entry["history"] = [asdict(change) for change in history.get(entry["model"], ())]
    return json_response({"object": "list", "data": data})


@router.get("/course")
async def course(request: Request, model: str, since: str) -> Response:
    """How each variant's agreement with the reference went, in 48 equal steps since a time.

    ``since`` is as in ``GET /v1/quality``. An entry is of one variant, origin and pair of artifacts
    in one step, over the samples of this step alone, with its 95 % interval; where nothing was
    compared there is none. Samples are kept for ``quality.keep_days``.
    """
    services = services_of(request)
    check_query(request, "model", "since")
    name = check_model(services, model)
    begin = read_time(since)
    step_s = max((time.time() - begin) / NUM_STEPS, LEAST_STEP_S)
    steps = await board_of(services).course(name, begin, step_s)
    data = [asdict(step) for step in steps]
    return json_response({"object": "list", "model": name, "step_s": step_s, "data": data})


def read_time(text: str) -> float:
    """Seconds since 1970 of a time that is given so or in ISO 8601.

    Raises:
        InvalidField: It is neither, or lies in the future.
    """
    for read in (float, _iso_seconds):
        with suppress(ValueError, OverflowError):
            if isfinite(seconds := read(text)) and seconds <= time.time() + CLOCKS_S:
                return seconds
    raise InvalidField(
        f"since is {text!r}; give seconds since 1970, or a time such as 2026-11-28 or "
        "2026-11-28T20:00:00Z, that is past",
        param="since",
    )


def _iso_seconds(text: str) -> float:
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def check_query(request: Request, *known: str) -> None:
    """Raise ``InvalidField`` if the query has a parameter that means nothing here."""
    for name in request.query_params:
        if name not in known:
            raise InvalidField(
                f"unknown query parameter {name!r}; known: {', '.join(known)}", param=name
            )


@router.get("/inputs")
async def inputs(request: Request, model: str) -> Response:
    """The latest live inputs of a model that were kept, as JSON lines: a file of probes."""
    services = services_of(request)
    check_query(request, "model")
    model = check_model(services, model)
    kept = await board_of(services).inputs(model)
    lines = [orjson.dumps(probe_line(one), option=orjson.OPT_APPEND_NEWLINE) for one in kept]
    return Response(b"".join(lines), media_type="application/jsonl")


@router.post("/evaluate", status_code=202)
async def evaluate(request: Request, body: EvaluateBody) -> Response:
    """Start the evaluation of every variant of a model on its labelled data, at low priority.

    ``GET /v1/quality`` tells how far it is. While one runs, another is not started.
    """
    services = services_of(request)
    model = check_model(services, body.model)
    progress = await board_of(services).evaluate(model)
    return json_response({"model": model, **asdict(progress)}, status=202)


def board_of(services: Services) -> QualityBoard:
    """Where quality is known."""
    if services.board is None:
        raise NotReady("no process compares variants here")
    return services.board


def check_model(services: Services, model: str) -> str:
    """Return a model's own name, of an alias too; raise ``Unknown`` unless it is served."""
    found = find_model(services.catalog, model)
    if found is None:
        raise Unknown(
            f"unknown model {model!r}; served: {', '.join(services.catalog)}", param="model"
        )
    return found.name
