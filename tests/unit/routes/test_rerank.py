"""Rerank: both kinds of bodies, their answers, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.errors import TooManyTokens
from serving.routes.json_nesting import MAX_NESTING
from serving.seams import NO_OPTIONS
from tests.unit.fakes.backends import served_model
from tests.unit.fakes.encoder import row_of
from tests.unit.routes.sites import MODELS, Site, open_gateway, open_replica

RERANKER = served_model("reranker", "rerank", ["fp32", "int4"], "fp32", "fp32")
RERANK = "/v1/rerank"
DOCUMENTS = ["a dog", "the cat", "a mat"]


def score(document: str, variant: str = "reranker:int4", query: str = "cat") -> float:
    return float(row_of([1, *query.encode(), 3, *document.encode(), 2], variant)[0])


def ranking(variant: str = "reranker:int4") -> list[int]:
    scores = [score(document, variant) for document in DOCUMENTS]
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def body(**changes: Any) -> dict[str, Any]:
    """A good body; what is () is left out."""
    plain = {"model": "reranker:int4", "query": "cat", "documents": DOCUMENTS}
    return {key: value for key, value in {**plain, **changes}.items() if value != ()}


def texts_body(**changes: Any) -> dict[str, Any]:
    return body(**{"documents": (), "texts": DOCUMENTS, **changes})


def open_selecting() -> Site:
    return open_gateway([*MODELS, RERANKER])


@pytest.fixture(params=[open_selecting, lambda: open_replica(RERANKER)], ids=["gateway", "replica"])
def site(request: pytest.FixtureRequest) -> Site:
    """Either mount; each test runs for both."""
    opened: Site = request.param()
    return opened


async def post(site: Site, sent: dict[str, Any], **headers: str) -> Any:
    response = await site.client.post(RERANK, json=sent, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


async def refusal(site: Site, sent: dict[str, Any]) -> dict[str, Any]:
    response = await site.client.post(RERANK, json=sent)
    assert response.status_code == 422
    error: dict[str, Any] = response.json()["error"]
    return error


async def test_documents_come_back_by_relevance(site: Site) -> None:
    assert await post(site, body(), **{"X-Request-Id": "abc"}) == {
        "id": "abc",
        "model": "reranker:int4",
        "results": [
            {"index": index, "relevance_score": pytest.approx(score(DOCUMENTS[index]))}
            for index in ranking()
        ],
        "usage": {"prompt_tokens": 35, "total_tokens": 35},
    }


async def test_texts_come_back_as_a_list(site: Site) -> None:
    expected = [
        {"index": index, "score": pytest.approx(score(DOCUMENTS[index]))} for index in ranking()
    ]
    assert await post(site, texts_body()) == expected


@pytest.mark.parametrize("path", ["/rerank", "/v2/rerank"])
class TestOtherServersPaths:
    """The one route, as vLLM, text-embeddings-inference and Cohere call it."""

    @pytest.mark.parametrize("sent", [body(top_n=2), texts_body(return_text=True)])
    async def test_answers_are_the_same(self, site: Site, path: str, sent: dict[str, Any]) -> None:
        headers = {"X-Request-Id": "abc"}
        response = await site.client.post(path, json=sent, headers=headers)
        assert response.status_code == 200
        assert response.json() == await post(site, sent, **headers)

    async def test_so_are_refusals(self, site: Site, path: str) -> None:
        sent = body(top_n=0)
        response = await site.client.post(path, json=sent)
        assert (response.status_code, response.json()["error"]) == (422, await refusal(site, sent))

    async def test_the_path_may_choose_the_variant(self, path: str) -> None:
        client = open_selecting().client
        chosen = await client.post(f"/reranker/int4{path}", json=texts_body(model=()))
        assert chosen.json() == await post(open_selecting(), texts_body())

    async def test_other_methods_are_told_of_post(self, site: Site, path: str) -> None:
        for method in ("GET", "HEAD", "OPTIONS", "DELETE"):
            response = await site.client.request(method, path)
            assert (response.status_code, response.headers["Allow"]) == (405, "POST")
        assert (await site.client.get(path)).json()["error"]["code"] == "method_not_allowed"

    async def test_it_is_documented(self, path: str) -> None:
        paths = (await open_selecting().client.get("/openapi.json")).json()["paths"]
        operation, known = paths[path]["post"], paths[RERANK]["post"]
        assert operation["requestBody"] == known["requestBody"]
        assert operation["operationId"] != known["operationId"]


async def test_only_the_best_if_so_many_are_wanted(site: Site) -> None:
    results = (await post(site, body(top_n=2)))["results"]
    assert [result["index"] for result in results] == ranking()[:2]
    assert len((await post(site, body(top_n=99)))["results"]) == 3


async def test_documents_are_returned_as_they_came(site: Site) -> None:
    documents = ["a dog", {"text": "the cat", "title": "Cats", "page": None}, {"text": "a mat"}]
    results = (await post(site, body(documents=documents, return_documents=True)))["results"]
    by_index = {result["index"]: result["document"] for result in results}
    assert by_index == {0: {"text": "a dog"}, 1: documents[1], 2: documents[2]}


@pytest.mark.parametrize("value", [2**80, -(2**64), 1.5, None, {"a": [{}, "\U0001f600"]}, "deep"])
async def test_whatever_else_a_document_holds_comes_back(site: Site, value: Any) -> None:
    if value == "deep":
        value = json.loads("[" * (MAX_NESTING - 3) + "]" * (MAX_NESTING - 3))
    documents = [{"text": "a cat", "more": value}]
    answer = await post(site, body(documents=documents, return_documents=True))
    assert [result["document"] for result in answer["results"]] == documents


@pytest.mark.parametrize("more", [{"more": "\ud800"}, {"more": [{"\ud800": 1}]}, {"\ud800": 1}])
@pytest.mark.parametrize("returned", [False, True])
async def test_half_a_character_in_a_document(site: Site, more: Any, returned: bool) -> None:
    sent = body(documents=[{"text": "a cat", **more}], return_documents=returned)
    headers = {"Content-Type": "application/json"}
    response = await site.client.post(RERANK, content=json.dumps(sent), headers=headers)
    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"] == "documents"


async def test_texts_are_returned_on_demand(site: Site) -> None:
    answer = await post(site, texts_body(return_text=True))
    assert [entry["text"] for entry in answer] == [DOCUMENTS[index] for index in ranking()]


async def test_equally_relevant_documents_keep_their_order(site: Site) -> None:
    results = (await post(site, body(documents=["x", "x", "x"])))["results"]
    assert [result["index"] for result in results] == [0, 1, 2]


@pytest.mark.parametrize(
    ("sent", "truncates"),
    [
        (body(), True),
        (body(truncate=False), False),
        (texts_body(), False),
        (texts_body(truncate=True), True),
        (texts_body(truncate=None), False),
    ],
)
async def test_each_kind_of_client_gets_the_cutting_that_it_knows(
    site: Site, sent: dict[str, Any], truncates: bool
) -> None:
    await post(site, sent)
    [request] = site.backend("reranker").requests
    assert request.inputs == tuple(("cat", document) for document in DOCUMENTS)
    assert (request.truncate, request.options) == (truncates, NO_OPTIONS)


HARMLESS = [
    body(rank_fields=["text"], max_chunks_per_doc=1, user="someone"),
    body(top_n=None, return_documents=None, rank_fields=None, max_chunks_per_doc=None),
    body(texts=None, truncate=None, variant=None),
    texts_body(raw_scores=False, truncation_direction="Right", return_text=False),
    texts_body(raw_scores=None, truncation_direction="right", documents=None),
]


@pytest.mark.parametrize("sent", HARMLESS)
async def test_what_changes_no_answer_is_accepted(site: Site, sent: dict[str, Any]) -> None:
    await post(site, sent)


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (body(query=()), "query", "query: Field required"),
    (body(query=""), "query", "query: String should have at least 1 character"),
    (body(documents=()), "documents", "documents: send either documents or texts"),
    (body(texts=["a"]), "documents", "documents: send either documents or texts"),
    (body(documents=[]), "documents", "documents: List should have at least 1 item"),
    (body(documents=["a", ""]), "documents", "documents[1].text: String should have at least 1"),
    (body(documents=[{"title": "a"}]), "documents", "documents[0].text: Field required"),
    (body(documents=[5]), "documents", "documents[0]: Input should be a valid dictionary"),
    (texts_body(texts=[{"text": "a"}]), "texts", "texts[0]: Input should be a valid string"),
    (body(top_n=0), "top_n", "top_n: Input should be greater than or equal to 1"),
    (body(top_n=True), "top_n", "top_n: Input should be a valid integer"),
    (body(top_n="1"), "top_n", "top_n: Input should be a valid integer"),
    (body(return_documents="yes"), "return_documents", "return_documents: Input should be a valid"),
    (body(truncate=0), "truncate", "truncate: Input should be a valid boolean"),
    (body(max_tokens_per_doc=9), "max_tokens_per_doc", "max_tokens_per_doc: unknown field"),
    (body(max_chunks_per_doc=10), "max_chunks_per_doc", "max_chunks_per_doc: Input should be 1"),
    (body(rank_fields=["title"]), "rank_fields", "rank_fields[0]: Input should be 'text'"),
    (texts_body(raw_scores=True), "raw_scores", "raw_scores: Input should be False"),
    (
        texts_body(truncation_direction="Left"),
        "truncation_direction",
        "truncation_direction: Input should be 'Right' or 'right'",
    ),
    (body(return_text=True), "return_text", "return_text: unknown field where documents are sent"),
    (texts_body(top_n=1), "top_n", "top_n: unknown field where texts are sent"),
    (body(documents=["a"] * 257), "documents", "257 inputs; at most 256 in one request"),
    (body(truncate=False, documents=["x" * 50]), "documents", "a text is too long"),
]


@pytest.mark.parametrize(("sent", "param", "message"), REFUSED)
async def test_a_wrong_field_is_named(
    site: Site, sent: dict[str, Any], param: str, message: str
) -> None:
    error = await refusal(site, sent)
    assert (error["code"], error["param"]) == ("invalid_field", param)
    assert error["message"].startswith(message)


async def test_a_model_of_another_task_is_refused() -> None:
    error = await refusal(open_selecting(), body(model="minilm"))
    assert error["message"] == "model 'minilm' serves embeddings, this route rerank"


async def test_the_variant_is_chosen_as_everywhere() -> None:
    site = open_selecting()
    by_path = await site.client.post(f"/reranker/int4{RERANK}", json=body(model=()))
    by_header = await post(site, body(model="reranker"), **{"X-Variant": "int4"})
    by_field = await post(site, body(model="reranker", variant="int4"))
    default = await post(site, body(model="reranker"))
    assert by_path.json()["results"] == by_header["results"] == by_field["results"]
    assert (by_field["model"], default["model"]) == ("reranker:int4", "reranker:fp32")
    expected = [result["index"] for result in default["results"]]
    assert expected == ranking("reranker:fp32")


def infer_body(query: list[str], text: list[str]) -> dict[str, Any]:
    tensors = {"query": query, "text": text}
    return {
        "inputs": [
            {"name": name, "shape": [len(data)], "datatype": "BYTES", "data": data}
            for name, data in tensors.items()
        ]
    }


async def test_tensors_of_the_open_inference_protocol(site: Site) -> None:
    path = "/v2/models/reranker/versions/int4"
    described = (await site.client.get(path)).json()
    assert described["inputs"] == [
        {"name": "query", "datatype": "BYTES", "shape": [-1]},
        {"name": "text", "datatype": "BYTES", "shape": [-1]},
    ]
    assert described["outputs"] == [{"name": "score", "datatype": "FP32", "shape": [-1]}]
    for queries in (["cat"], ["cat"] * 3):
        answer = await site.client.post(f"{path}/infer", json=infer_body(queries, DOCUMENTS))
        [output] = answer.json()["outputs"]
        assert output["shape"] == [3]
        assert output["data"] == pytest.approx([score(document) for document in DOCUMENTS])


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (infer_body(["a", "b"], DOCUMENTS), "2 queries for 3 texts; send one query for all"),
        ({"inputs": infer_body(["a"], ["b"])["inputs"][:1]}, "inputs: query; expected query, text"),
    ],
)
async def test_tensors_that_do_not_fit_are_refused(
    site: Site, sent: dict[str, Any], message: str
) -> None:
    response = await site.client.post("/v2/models/reranker/versions/int4/infer", json=sent)
    assert response.status_code == 422
    assert response.json()["error"].startswith(message)


@pytest.mark.parametrize(("sent", "field"), [(body(), "documents"), (texts_body(), "texts")])
async def test_an_input_at_fault_is_called_as_in_the_body(
    site: Site, sent: dict[str, Any], field: str
) -> None:
    backend = site.backend("reranker", "int4")
    backend.failure = TooManyTokens("input[1] has 600 tokens; the limit is 512.", param="input")
    response = await site.client.post(RERANK, json=sent)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["message"] == f"{field}[1] has 600 tokens; the limit is 512."
    assert (error["param"], error["code"]) == (field, "context_length_exceeded")
