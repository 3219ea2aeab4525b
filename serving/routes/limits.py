"""The limits that a request states, in its body or in headers."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from starlette.datastructures import Headers

from serving.errors import ConflictingChoice, InvalidField
from serving.routes.schemas import Slo
from serving.seams import Limits

HEADERS = {
    "max_latency_ms": "X-Max-Latency-Ms",
    "min_quality": "X-Min-Quality",
    "max_weights_bytes": "X-Max-Weights-Bytes",
}


def read_limits(headers: Headers, slo: Slo | None) -> Limits:
    """Join the limits of the headers with those of the body.

    Raises:
        InvalidField: A header's value is no such limit; names the header.
        ConflictingChoice: A limit is stated twice, with different values.
    """
    slo = slo or Slo()
    given = {field: _the_one(headers, field, getattr(slo, field)) for field in HEADERS}
    latency_ms = given["max_latency_ms"]
    return Limits(
        max_latency_s=None if latency_ms is None else latency_ms / 1e3,
        min_quality=given["min_quality"],
        max_weights_bytes=given["max_weights_bytes"],
    )


def _the_one(headers: Headers, field: str, in_body: Any) -> Any:
    value = in_body
    for text in headers.getlist(HEADERS[field]):
        in_header = _parse(field, text)
        if value not in (None, in_header):
            raise ConflictingChoice(
                f"header {HEADERS[field]} says {in_header:.15g}, but {field} is also given as "
                f"{value:.15g}; give one",
                param=field,
            )
        value = in_header
    return value


def parse_limit(field: str, text: str | None) -> Any:
    """One limit of a query; None if it is not given.

    Raises:
        InvalidField: It is no such limit.
    """
    return None if text is None else _read(field, text, f"query {field}", field)


def _parse(field: str, text: str) -> Any:
    return _read(field, text, f"header {HEADERS[field]}", HEADERS[field])


def _read(field: str, text: str, where: str, param: str) -> Any:
    try:
        return getattr(Slo.model_validate({field: text}, strict=False), field)
    except ValidationError as error:
        raise InvalidField(f"{where}: {error.errors()[0]['msg']}", param=param) from None
