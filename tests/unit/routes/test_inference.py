"""The OpenAI routes: answers, encodings and limits of a body."""

import base64
from typing import Any

import numpy as np
import pytest

from serving.seams import NO_OPTIONS, AnswerOptions
from tests.unit.fakes.encoder import LABELS, row_of
from tests.unit.routes.sites import (
    CLASSIFY,
    EMBEDDINGS,
    SENTIMENT,
    embeddings_body,
    open_gateway,
    open_replica,
)

CAT = row_of([1, *b"a cat", 2], "minilm:int4").tolist()
DOG = row_of([1, *b"dog", 2], "minilm:int4").tolist()


async def test_both_mounts_and_both_paths_give_the_same_answer(gateway, replica) -> None:
    body = embeddings_body(input=["a cat", "dog"])
    answers = [
        await gateway.client.post(EMBEDDINGS, json=body),
        await gateway.client.post(f"/minilm/int4{EMBEDDINGS}", json=body),
        await replica.client.post(EMBEDDINGS, json=body),
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[0].json() == answers[1].json() == answers[2].json()


async def test_an_embeddings_answer_has_openai_s_shape(site) -> None:
    response = await site.client.post(EMBEDDINGS, json=embeddings_body(input=["a cat", "dog"]))
    assert response.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": pytest.approx(CAT)},
            {"object": "embedding", "index": 1, "embedding": pytest.approx(DOG)},
        ],
        "model": "minilm:int4",
        "usage": {"prompt_tokens": 12, "total_tokens": 12},
    }


async def test_numbers_survive_as_float32(site) -> None:
    response = await site.client.post(EMBEDDINGS, json=embeddings_body())
    vector = np.array(response.json()["data"][0]["embedding"], np.float32)
    assert vector.tolist() == CAT


async def test_base64_holds_little_endian_float32(site) -> None:
    body = embeddings_body(encoding_format="base64", input=["a cat", "dog"])
    data = (await site.client.post(EMBEDDINGS, json=body)).json()["data"]
    decoded = [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in data]
    assert [vector.tolist() for vector in decoded] == [CAT, DOG]


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
async def test_dimensions_shorten_a_vector(site, encoding_format: str) -> None:
    body = embeddings_body(dimensions=3, encoding_format=encoding_format)
    [entry] = (await site.client.post(EMBEDDINGS, json=body)).json()["data"]
    vector = entry["embedding"]
    if encoding_format == "base64":
        vector = np.frombuffer(base64.b64decode(vector), "<f4").tolist()
    assert vector == pytest.approx(CAT[:3])


@pytest.mark.parametrize(
    ("given", "texts"), [("one", ("one",)), (["one"], ("one",)), (["b", "a", "b"], ("b", "a", "b"))]
)
async def test_the_backend_gets_the_texts_and_settings(open_site, given, texts) -> None:
    site = open_site(request_timeout_s=7)
    body = embeddings_body(input=given, truncate=True, dimensions=2, **SAYS_NOTHING)
    assert (await site.client.post(EMBEDDINGS, json=body)).status_code == 200
    [request] = site.backend().requests
    assert request.inputs == texts
    assert (request.truncate, request.options) == (True, AnswerOptions(2))
    assert 6 < request.timeout_s <= 7  # since the request arrived


OPTIONS: dict[str, Any] = {"dimensions": 3, "prompt_name": "query", "normalize": False}


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
async def test_options_reach_the_backend_and_the_answer(site, encoding_format: str) -> None:
    plain, asked = [
        await site.client.post(
            "/v1/embeddings", json=embeddings_body(encoding_format=encoding_format, **options)
        )
        for options in ({}, OPTIONS)
    ]
    assert asked.status_code == 200, asked.text
    assert asked.json()["data"] != plain.json()["data"]
    [_, request] = site.backend().requests
    assert request.options == AnswerOptions(**OPTIONS)


NULLS = dict.fromkeys(
    [
        "encoding_format",
        "dimensions",
        "prompt_name",
        "normalize",
        "truncate",
        "user",
        "variant",
        "slo",
    ]
)


async def test_null_leaves_a_field_out(site) -> None:
    response = await site.client.post(EMBEDDINGS, json=embeddings_body(**NULLS))
    assert response.json()["data"][0]["embedding"] == pytest.approx(CAT)
    [request] = site.backend().requests
    assert (request.truncate, request.options) == (False, NO_OPTIONS)


@pytest.mark.parametrize("open_it", [open_gateway, lambda: open_replica(SENTIMENT)])
async def test_a_classify_answer_has_the_score_of_every_label(open_it) -> None:
    site = open_it()
    body = {"model": "sentiment:int4", "input": ["good", "bad"]}
    answer = (await site.client.post(CLASSIFY, json=body)).json()
    rows = [row_of([1, *text, 2], "sentiment:int4", 2) for text in (b"good", b"bad")]
    assert answer == {
        "object": "list",
        "data": [
            {
                "index": index,
                "label": LABELS[row.argmax()],
                "score": pytest.approx(max(row)),
                "scores": pytest.approx(dict(zip(LABELS, row.tolist(), strict=True))),
            }
            for index, row in enumerate(rows)
        ],
        "model": "sentiment:int4",
        "usage": {"prompt_tokens": 11, "total_tokens": 11},
    }


SAYS_NOTHING = {"user": "someone", "metadata": {"team": "a"}, "safety_identifier": "b"}
"""Fields that clients send and no answer depends on."""


@pytest.mark.parametrize(
    ("given", "expected"), [([5, 6], ((5, 6),)), ([[5, 6], [7]], ((5, 6), (7,)))]
)
async def test_token_ids(site, given, expected) -> None:
    response = await site.client.post(EMBEDDINGS, json=embeddings_body(input=given))
    rows = [row_of(list(ids), "minilm:int4") for ids in expected]
    answer = response.json()
    assert [one["embedding"] for one in answer["data"]] == [pytest.approx(list(r)) for r in rows]
    assert answer["usage"]["prompt_tokens"] == sum(map(len, expected))
    [asked] = site.backends.encoders["minilm", "int4"].requests
    assert (asked.inputs, asked.token_ids) == ((), expected)


@pytest.mark.parametrize("given", [[1, 2], [[1, 2]]])
async def test_another_task_takes_no_token_ids(site, given) -> None:
    response = await site.client.post(CLASSIFY, json={"model": "sentiment:int4", "input": given})
    if response.status_code != 404:  # the direct path serves one model alone
        assert response.json()["error"]["message"].startswith("input: token ids are not accepted")


INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({"temperature": 1}, "temperature", "temperature: unknown field"),
    ({"Input": "x"}, "Input", "Input: unknown field"),
    ({"input": None}, "input", "input: Field required"),
    ({"input": ""}, "input", "input: String should have at least 1 character"),
    ({"input": 7}, "input", "input: Input should be a valid string"),
    ({"input": []}, "input", "input: List should have at least 1 item"),
    ({"input": [[]]}, "input", "input[0]: List should have at least 1 item"),
    ({"input": [-1]}, "input", "input[0]: Input should be greater than or equal to 0"),
    ({"input": [2**31]}, "input", "input[0]: Input should be less than 2147483648"),
    ({"input": [1, "a"]}, "input", "input[1]: Input should be a valid integer"),
    ({"input": ["a", 1]}, "input", "input[1]: Input should be a valid string"),
    ({"input": [[1], [True]]}, "input", "input[1][0]: Input should be a valid integer"),
    ({"input": [[1]] * 257}, "input", "257 inputs; at most 256 in one request"),
    ({"input": {"text": "x"}}, "input", "input: Input should be a valid string"),
    ({"input": ["x"] * 257}, "input", "257 inputs; at most 256 in one request"),
    ({"input": "x" * 50}, "input", "a text is too long"),
    ({"model": 5}, "model", "model: Input should be a valid string"),
    ({"variant": 4}, "variant", "variant: Input should be a valid string"),
    ({"encoding_format": "hex"}, "encoding_format", "encoding_format: Input should be 'float'"),
    ({"dimensions": 0}, "dimensions", "dimensions: Input should be greater than or equal to 1"),
    ({"dimensions": 9}, "dimensions", "dimensions is 9"),
    ({"dimensions": "many"}, "dimensions", "dimensions: Input should be a valid integer"),
    ({"prompt_name": "web"}, "prompt_name", "this model has query"),
    ({"prompt_name": ""}, "prompt_name", "prompt_name: String should have at least 1 character"),
    ({"prompt_name": ["query"]}, "prompt_name", "prompt_name: Input should be a valid string"),
    ({"normalize": 1}, "normalize", "normalize: Input should be a valid boolean"),
    ({"dimensions": True}, "dimensions", "dimensions: Input should be a valid integer"),
    ({"dimensions": "2"}, "dimensions", "dimensions: Input should be a valid integer"),
    ({"truncate": 1}, "truncate", "truncate: Input should be a valid boolean"),
    ({"truncate": "true"}, "truncate", "truncate: Input should be a valid boolean"),
    ({"slo": {"max_latency_ms": "50"}}, "slo", "slo.max_latency_ms: Input should be a valid"),
    ({"truncate": "perhaps"}, "truncate", "truncate: Input should be a valid boolean"),
    ({"model": ["minilm"]}, "model", "model: Input should be a valid string"),
    ({"variant": ["int4"]}, "variant", "variant: Input should be a valid string"),
    ({"user": []}, "user", "user: Input should be a valid string"),
    ({"input": ["a", ["b"]]}, "input", "input[1]: Input should be a valid string"),
]


@pytest.mark.parametrize(("changes", "param", "message"), INVALID)
async def test_a_wrong_field_is_named(site, changes, param: str, message: str) -> None:
    response = await site.client.post(EMBEDDINGS, json=embeddings_body(**changes))
    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error",
        "invalid_field",
        param,
    )
    assert error["message"].startswith(message)


async def test_a_missing_input_is_named(site) -> None:
    response = await site.client.post(EMBEDDINGS, json={"model": "minilm:int4"})
    assert response.status_code == 422
    assert response.json()["error"]["message"] == "input: Field required"


async def test_several_wrong_fields_are_told_at_once(site) -> None:
    body = embeddings_body(dimensions=0, temperature=1)
    error = (await site.client.post(EMBEDDINGS, json=body)).json()["error"]
    assert error["message"].startswith("dimensions: Input should be")
    assert "; temperature: unknown field" in error["message"]
    assert error["param"] == "dimensions"


async def test_the_gateway_needs_a_model(gateway) -> None:
    response = await gateway.client.post(EMBEDDINGS, json={"input": "x"})
    assert response.status_code == 422
    assert response.json()["error"]["message"] == "model is missing"


@pytest.mark.parametrize(
    ("route", "model", "message"),
    [
        (CLASSIFY, "minilm", "model 'minilm' serves embeddings, this route classification"),
        (EMBEDDINGS, "sentiment", "model 'sentiment' serves classification, this route embeddings"),
    ],
)
async def test_a_model_of_another_task_is_refused(gateway, route, model, message) -> None:
    response = await gateway.client.post(route, json={"model": model, "input": "x"})
    assert response.status_code == 422
    assert response.json()["error"]["message"] == message


async def test_fields_of_embeddings_are_unknown_to_classify(gateway) -> None:
    body = {"model": "sentiment", "input": "x", "dimensions": 2}
    response = await gateway.client.post(CLASSIFY, json=body)
    assert response.status_code == 422
    assert response.json()["error"]["message"] == "dimensions: unknown field"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "input: List should have at least 1 item"),
        (["a", ""], "input[1]: String should have at least 1 character"),
    ],
)
async def test_a_wrong_list_is_not_called_a_wrong_string(site, given, message: str) -> None:
    response = await site.client.post(EMBEDDINGS, json=embeddings_body(input=given))
    assert response.status_code == 422
    assert response.json()["error"]["message"].startswith(message)


@pytest.mark.parametrize("given", [[], ["a", ""], ["a", 5], ["a", None], [1.5], [["a"]]])
async def test_a_wrong_list_is_refused(site, given) -> None:
    response = await site.client.post(EMBEDDINGS, json=embeddings_body(input=given))
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "input"
    assert site.backend().requests == []
