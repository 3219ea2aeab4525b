"""``response_format``: what is asked of the backend, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.routes.generation.conftest import ROUTES, body_of

SCHEMA = {"type": "object", "properties": {"b": {}, "a": {"type": "integer"}}}


def as_schema(schema: Any = SCHEMA, **fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **fields}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_object", "json_schema": None}, {"type": "object"}),
        (as_schema(), SCHEMA),
        (as_schema(strict=True), SCHEMA),
        (as_schema(strict=False, description="d"), SCHEMA),
        (as_schema({}), {}),
    ],
)
@pytest.mark.parametrize("route", ROUTES)
async def test_what_is_asked(generator: Any, route: str, given: Any, expected: Any) -> None:
    assert (await generator.post(route, response_format=given)).status_code == 200
    [asked] = generator.fake.requests
    assert asked.answer_schema == expected
    if expected:  # texts have the order of the schema
        assert list(asked.answer_schema) == list(expected)


PLACE = "response_format.json_schema"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "response_format.type: "),
        ("json", "response_format: "),
        ({"type": "json"}, "response_format.type: "),
        ({"type": "json_schema"}, "response_format: json_schema goes with"),
        ({"type": "json_object", **as_schema({})} | {"type": "text"}, "response_format: json_sch"),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, f"{PLACE}.schema: "),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, f"{PLACE}.name: "),
        (as_schema("{}"), f"{PLACE}.schema: "),
        (as_schema({}, name="a b"), f"{PLACE}.name: "),
        (as_schema({}, strict="yes"), f"{PLACE}.strict: "),
        (as_schema({}, schemas={}), f"{PLACE}.schemas: unknown field"),
        (as_schema({"nullable": True}), f"{PLACE}.schema: keyword 'nullable'"),
        (
            as_schema({"properties": {"a": {"nullable": True}}}),
            f"{PLACE}.schema.properties.a: keyword 'nullable'",
        ),
    ],
)
@pytest.mark.parametrize("route", ROUTES)
async def test_what_is_refused(
    replica_generator: Any, route: str, given: Any, message: str
) -> None:
    response = await replica_generator.post(route, response_format=given)
    assert response.status_code == 422, response.text
    error = response.json()["error"]
    assert error["param"] == "response_format"
    assert error["message"].startswith(message)
    assert replica_generator.fake.requests == []


@pytest.mark.parametrize("route", ROUTES)
async def test_an_answer_in_json_ends_by_itself(replica_generator: Any, route: str) -> None:
    fields = {"response_format": {"type": "json_object"}, "ignore_eos": True}
    response = await replica_generator.post(route, **fields)
    assert (response.status_code, response.json()["error"]["param"]) == (422, "ignore_eos")


@pytest.mark.parametrize(
    "field",
    [
        *("guided_json", "guided_regex", "guided_choice", "guided_grammar"),
        *("guided_decoding_backend", "guided_whitespace_pattern", "structured_outputs"),
    ],
)
@pytest.mark.parametrize("route", ROUTES)
async def test_another_server_s_name_for_it(replica_generator: Any, route: str, field: str) -> None:
    response = await replica_generator.site.client.post(
        route, json=body_of(route, **{field: {"type": "object"}})
    )
    assert response.status_code == 422
    message = response.json()["error"]["message"]
    assert message == f"{field}: not supported; send response_format with a JSON schema"
