"""Every error has its status and one shape, in OpenAI's form and in the Open Inference one."""

import json

import httpx
import pytest

from serving.errors import RequestError
from serving.routes.error_responses import is_open_inference
from tests.unit.routes.sites import EMBEDDINGS, embeddings_body, infer_body
from tests.unit.test_errors import REQUEST_ERRORS

INFER = "/v2/models/minilm/versions/int4/infer"
JSON_TYPE = {"Content-Type": "application/json"}


@pytest.mark.parametrize("kind", REQUEST_ERRORS)
async def test_an_expected_error_has_openai_s_shape(site, kind: type[RequestError]) -> None:
    site.backend().failure = kind("what was wrong", param="input")
    response = await site.client.post(EMBEDDINGS, json=embeddings_body())
    assert response.status_code == kind.status
    assert response.headers["content-type"] == "application/json"
    assert "Retry-After" not in response.headers
    assert response.json() == {
        "error": {
            "message": "what was wrong",
            "type": kind.type,
            "code": kind.code,
            "param": "input",
        }
    }


@pytest.mark.parametrize("kind", REQUEST_ERRORS)
async def test_an_expected_error_has_the_open_inference_shape(
    site, kind: type[RequestError]
) -> None:
    site.backend().failure = kind("what was wrong", param="input")
    response = await site.client.post(INFER, json=infer_body())
    assert response.status_code == kind.status
    assert response.json() == {"error": "what was wrong"}


@pytest.mark.parametrize(("path", "body"), [(EMBEDDINGS, embeddings_body()), (INFER, infer_body())])
async def test_advice_to_retry_is_sent(site, path: str, body) -> None:
    (kind,) = (kind for kind in REQUEST_ERRORS if kind.status == 429)
    site.backend().failure = kind("full", retry_after_s=3)
    response = await site.client.post(path, json=body)
    assert response.status_code == 429
    assert response.headers["Retry-After"] == "3"


@pytest.mark.parametrize(("path", "body"), [(EMBEDDINGS, embeddings_body()), (INFER, infer_body())])
async def test_an_unforeseen_error_has_the_shape_too(site, path: str, body) -> None:
    site.backend().failure = RuntimeError("secret detail of a kernel")
    response = await site.client.post(path, json=body)
    assert response.status_code == 500
    assert "internal error" in str(response.json()["error"])
    assert "secret" not in response.text
    assert "Traceback" not in response.text


async def test_an_unforeseen_error_is_counted_as_500(site) -> None:
    site.backend().failure = RuntimeError("secret detail of a kernel")
    transport = site.client._transport
    assert isinstance(transport, httpx.ASGITransport)
    transport.raise_app_exceptions = False
    response = await site.client.post(EMBEDDINGS, json=embeddings_body())
    assert response.status_code == 500
    assert "secret" not in response.text
    assert [status for _, status in site.counted()] == ["500"]


MALFORMED = [
    (b"", JSON_TYPE),
    (b"{", JSON_TYPE),
    (b"{'input': 'x'}", JSON_TYPE),
    (b"[]", JSON_TYPE),
    (b"null", JSON_TYPE),
    (b'"text"', JSON_TYPE),
    (b'{"input": "\xff"}', JSON_TYPE),
    (b"[" * 100_000, JSON_TYPE),
    (b"input=x", {"Content-Type": "application/x-www-form-urlencoded"}),
]


@pytest.mark.parametrize(("content", "headers"), MALFORMED)
@pytest.mark.parametrize("path", [EMBEDDINGS, INFER])
async def test_a_body_that_is_no_json_object_is_malformed(site, path, content, headers) -> None:
    response = await site.client.post(path, content=content, headers=headers)
    assert response.status_code == 400
    error = response.json()["error"]
    assert isinstance(error, str) == (path == INFER)
    if path == EMBEDDINGS:
        assert error["code"] == "malformed_request"


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}])
async def test_json_needs_its_content_type_in_openai_s_routes(site, headers) -> None:
    """Triton's clients send none, see ``test_binary_tensors.py``; curl's default is no JSON."""
    response = await site.client.post(EMBEDDINGS, content=b'{"input": "x"}', headers=headers)
    assert response.status_code == 400
    assert "Content-Type: application/json" in response.json()["error"]["message"]


async def test_a_conflict_of_choices_is_400(gateway) -> None:
    headers = {"X-Variant": "fp32"}
    for path, body in ((EMBEDDINGS, embeddings_body()), (INFER, infer_body())):
        response = await gateway.client.post(path, json=body, headers=headers)
        assert response.status_code == 400
        assert "name one" in str(response.json()["error"])


async def test_two_headers_that_choose_differently_are_400(gateway) -> None:
    for other, status in (("int4", 200), ("fp32", 400)):
        headers = [("X-Variant", "int4"), ("X-Variant", other)]
        body = embeddings_body(model="minilm")
        response = await gateway.client.post(EMBEDDINGS, json=body, headers=headers)
        assert response.status_code == status
    assert response.json()["error"]["message"] == (
        "header X-Variant names variant 'int4', header X-Variant names 'fp32'; name one"
    )


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({"model": "gpt"}, "unknown model 'gpt'; served: minilm, sentiment", "model"),
        (
            {"model": "minilm:int2"},
            "model 'minilm' has no variant 'int2'; served: fp32, bf16, int4",
            "variant",
        ),
    ],
)
async def test_an_unknown_choice_is_404_with_the_known_ones(gateway, body, message, param) -> None:
    response = await gateway.client.post(EMBEDDINGS, json={**body, "input": "x"})
    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": message,
        "type": "invalid_request_error",
        "code": "not_found",
        "param": param,
    }


async def test_an_unknown_choice_in_the_path_is_404(gateway) -> None:
    for path in ("/gpt/int4/v1/embeddings", "/minilm/int2/v1/embeddings"):
        response = await gateway.client.post(path, json={"input": "x"})
        assert response.status_code == 404
        assert "served: " in response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/console", "/console/", "/a/b/c/d"])
async def test_an_unknown_route_is_404(site, path: str) -> None:
    response = await site.client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"
    assert response.json()["error"]["message"].startswith("no route GET ")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", EMBEDDINGS, "POST"),
        ("HEAD", EMBEDDINGS, "POST"),
        ("OPTIONS", EMBEDDINGS, "POST"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("PUT", "/v2/models/minilm/infer/", "POST"),
    ],
)
async def test_another_method_is_405(site, method: str, path: str, allowed: str) -> None:
    response = await site.client.request(method, path)
    assert response.status_code == 405
    assert response.headers["Allow"] == allowed
    if method == "HEAD":
        assert response.content == b""
        return
    assert f"this route takes {allowed}" in response.text
    if path.startswith("/v2"):
        return
    assert response.json()["error"]["code"] == "method_not_allowed"


async def test_another_method_is_405_in_the_open_inference_shape(site) -> None:
    response = await site.client.get(INFER)
    assert response.status_code == 405
    assert isinstance(response.json()["error"], str)


HALF = "\ud800"
"""Half of a character that JSON writes as two; UTF-8 has no form for it."""


async def test_half_a_character_is_an_invalid_text(site) -> None:
    content = json.dumps(embeddings_body(input=HALF))
    response = await site.client.post(EMBEDDINGS, content=content, headers=JSON_TYPE)
    assert response.status_code == 422


@pytest.mark.parametrize(
    "body", [infer_body(HALF), infer_body(id=HALF), infer_body(outputs=[{"name": HALF}])]
)
async def test_half_a_character_is_invalid_in_the_open_inference_protocol(site, body) -> None:
    response = await site.client.post(INFER, content=json.dumps(body), headers=JSON_TYPE)
    assert response.status_code == 422


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2", True),
        ("/v2/models", True),
        ("/minilm/int4/v2/models/minilm", True),
        ("/v1/embeddings", False),
        ("/v2x/models", False),
        ("/v2/rerank", False),
        ("/reranker/int4/v2/rerank", False),
        ("/v2/models/rerank", True),
        ("/healthz", False),
    ],
)
def test_the_shape_follows_the_path(path: str, expected: bool) -> None:
    assert is_open_inference(path) == expected
