"""The Open Inference Protocol: metadata, readiness and inference; a version is a variant."""

from typing import Any

import pytest

from serving import __version__
from serving.metrics import Labels
from serving.seams import AnswerOptions
from tests.unit.fakes.encoder import LABELS, row_of
from tests.unit.routes.sites import SENTIMENT, SMOLLM2, infer_body, open_gateway, open_replica

MINILM_INFER = "/v2/models/minilm/versions/int4/infer"


def row(text: bytes, name: str, width: int = 8) -> list[float]:
    return row_of([1, *text, 2], name, width).tolist()


async def test_the_server_tells_its_name_and_version(site) -> None:
    answer = await site.client.get("/v2")
    assert answer.json() == {
        "name": "quantserve",
        "version": __version__,
        "extensions": ["binary_tensor_data"],
    }


async def test_the_models_are_listed(gateway, replica) -> None:
    assert (await gateway.client.get("/v2/models")).json() == {"models": ["minilm", "sentiment"]}
    assert (await replica.client.get("/v2/models")).json() == {"models": ["minilm"]}


async def test_the_repository_index_has_every_version_with_its_state(gateway) -> None:
    gateway.backends.reasons["minilm", "int4"] = "loading"
    gateway.backends.reasons["sentiment", "fp32"] = "failed to start: disk"
    # Without a body, as Triton's client asks.
    answer = (await gateway.client.post("/v2/repository/index")).json()
    states = {(entry["name"], entry["version"]): entry["state"] for entry in answer}
    assert states == {
        ("minilm", "fp32"): "READY",
        ("minilm", "bf16"): "READY",
        ("minilm", "int4"): "LOADING",
        ("sentiment", "fp32"): "UNAVAILABLE",
        ("sentiment", "int4"): "READY",
    }
    assert answer[2]["reason"] == "loading"


async def test_the_repository_index_may_leave_out_what_is_not_ready(replica) -> None:
    index = "/v2/repository/index"
    assert len((await replica.client.post(index, json={"ready": True})).json()) == 1
    replica.backends.reasons["minilm", "int4"] = "loading"
    assert (await replica.client.post(index, json={"ready": True})).json() == []
    assert len((await replica.client.post(index, json={})).json()) == 1


@pytest.mark.parametrize(
    ("content", "status"), [(b"{", 400), (b"[]", 400), (b'{"ready": "yes"}', 422)]
)
async def test_a_wrong_question_about_the_repository(site, content: bytes, status: int) -> None:
    answer = await site.client.post("/v2/repository/index", content=content)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


async def test_the_body_of_infer_is_documented(gateway) -> None:
    document = (await gateway.client.get("/openapi.json")).json()
    for path in ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"):
        body = document["paths"][path]["post"]["requestBody"]
        schema = body["content"]["application/json"]["schema"]
        assert {"inputs", "outputs", "parameters", "id"} == set(schema["properties"])
        assert "$ref" not in str(schema)


@pytest.mark.parametrize("path", ["/v2/models/minilm", "/v2/models/minilm/versions/int4"])
async def test_metadata_of_embeddings(gateway, path: str) -> None:
    assert (await gateway.client.get(path)).json() == {
        "name": "minilm",
        "versions": ["fp32", "bf16", "int4"],
        "platform": "torch",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "embedding", "datatype": "FP32", "shape": [-1, 8]}],
    }


async def test_metadata_of_a_classification(gateway) -> None:
    assert (await gateway.client.get("/v2/models/sentiment")).json()["outputs"] == [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "score", "datatype": "FP32", "shape": [-1]},
        {"name": "scores", "datatype": "FP32", "shape": [-1, 2]},
    ]


async def test_a_replica_s_metadata_has_its_one_version(replica) -> None:
    assert (await replica.client.get("/v2/models/minilm")).json()["versions"] == ["int4"]


async def test_metadata_is_there_before_the_variant_is_ready(gateway) -> None:
    gateway.backends.reasons["minilm", "bf16"] = "loading"
    answer = await gateway.client.get("/v2/models/minilm")
    assert answer.status_code == 200
    assert answer.json()["outputs"][0]["shape"] == [-1, -1]


@pytest.mark.parametrize(
    ("path", "version"),
    [("/v2/models/minilm/ready", "bf16"), ("/v2/models/minilm/versions/int4/ready", "int4")],
)
async def test_readiness_of_a_model(gateway, path: str, version: str) -> None:
    answer = await gateway.client.get(path)
    assert answer.json() == {"name": "minilm", "version": version, "ready": True}
    gateway.backends.reasons["minilm", version] = "loading"
    answer = await gateway.client.get(path)
    assert answer.status_code == 503
    assert answer.json() == {"error": f"minilm:{version}: loading"}


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/gpt",
        "/v2/models/minilm/versions/int2",
        "/v2/models/minilm/versions/int2/ready",
        "/v2/models/minilm/no/such/route",
        "/minilm/int4/v2/models/gpt/no",
    ],
)
async def test_what_is_unknown_is_404_in_the_protocol_s_shape(gateway, path: str) -> None:
    answer = await gateway.client.get(path)
    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]


async def test_embeddings_are_one_tensor(site) -> None:
    answer = await site.client.post(MINILM_INFER, json=infer_body("a cat", "dog", id="7"))
    expected = row(b"a cat", "minilm:int4") + row(b"dog", "minilm:int4")
    assert answer.json() == {
        "model_name": "minilm",
        "model_version": "int4",
        "id": "7",
        "outputs": [
            {
                "name": "embedding",
                "datatype": "FP32",
                "shape": [2, 8],
                "data": pytest.approx(expected),
            }
        ],
    }


async def test_an_answer_without_an_id_has_none(site) -> None:
    assert "id" not in (await site.client.post(MINILM_INFER, json=infer_body())).json()


async def test_both_mounts_give_the_same_answer(gateway, replica) -> None:
    body = infer_body("a cat", "dog")
    answers = [
        (await client.post(path, json=body)).json()
        for client, path in [
            (gateway.client, MINILM_INFER),
            (gateway.client, f"/minilm/int4{MINILM_INFER}"),
            (gateway.client, "/minilm/int4/v2/models/minilm/infer"),
            (replica.client, MINILM_INFER),
            (replica.client, "/v2/models/minilm/infer"),
        ]
    ]
    assert answers == [answers[0]] * 5


async def test_without_a_version_the_default_variant_answers(gateway) -> None:
    answer = await gateway.client.post("/v2/models/minilm/infer", json=infer_body())
    assert answer.json()["model_version"] == "bf16"
    assert answer.json()["outputs"][0]["data"] == pytest.approx(row(b"a cat", "minilm:bf16"))


async def test_the_header_chooses_where_the_route_does_not(gateway) -> None:
    headers = {"X-Variant": "fp32"}
    answer = await gateway.client.post(
        "/v2/models/minilm/infer", json=infer_body(), headers=headers
    )
    assert answer.json()["model_version"] == "fp32"
    answer = await gateway.client.post(MINILM_INFER, json=infer_body(), headers=headers)
    assert answer.status_code == 400


def classification(texts: list[bytes]) -> list[dict[str, Any]]:
    rows = [row(text, "sentiment:int4", 2) for text in texts]
    flat = [score for scores in rows for score in scores]
    best = [LABELS[scores.index(max(scores))] for scores in rows]
    top = pytest.approx([max(scores) for scores in rows])
    size = len(texts)
    return [
        {"name": "label", "datatype": "BYTES", "shape": [size], "data": best},
        {"name": "score", "datatype": "FP32", "shape": [size], "data": top},
        {"name": "scores", "datatype": "FP32", "shape": [size, 2], "data": pytest.approx(flat)},
    ]


@pytest.mark.parametrize("open_it", [open_gateway, lambda: open_replica(SENTIMENT)])
@pytest.mark.parametrize(
    "wanted", [[], ["score"], ["scores", "label"], ["label", "score", "scores"]]
)
async def test_only_the_wanted_outputs_are_sent(open_it, wanted: list[str]) -> None:
    body = infer_body("good", "bad", outputs=[{"name": name} for name in wanted])
    answer = await open_it().client.post("/v2/models/sentiment/versions/int4/infer", json=body)
    assert answer.json()["outputs"] == [
        tensor
        for tensor in classification([b"good", b"bad"])
        if not wanted or tensor["name"] in wanted
    ]


async def test_parameters_reach_the_backend(site) -> None:
    options: dict[str, Any] = {"dimensions": 2, "prompt_name": "query", "normalize": True}
    body = infer_body("x" * 99, parameters={"truncate": True, **options})
    answer = await site.client.post(MINILM_INFER, json=body)
    assert answer.json()["outputs"][0]["shape"] == [1, 2]
    [request] = site.backend().requests
    assert request.truncate
    assert request.options == AnswerOptions(**options)


def tensor(**changes: Any) -> dict[str, Any]:
    plain = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    return {"inputs": [{**plain, **changes}]}


@pytest.mark.parametrize(
    ("shape", "data"),
    [([2], ["a", "b"]), ([2, 1], ["a", "b"]), ([2, 1], [["a"], ["b"]]), ([2], [["a"], ["b"]])],
)
async def test_shapes_that_fit_are_accepted(site, shape, data) -> None:
    answer = await site.client.post(MINILM_INFER, json=tensor(shape=shape, data=data))
    assert answer.status_code == 200
    assert site.backend().requests[0].inputs == ("a", "b")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (tensor(shape=[2]), "inputs[0].shape [2] does not fit 1 texts; expected [1]"),
        (tensor(shape=[-1]), "inputs[0].shape [-1] does not fit 1 texts; expected [1]"),
        (tensor(shape=[1, 2], data=["a", "b"]), "inputs[0].shape [1, 2] does not fit 2 texts"),
        (tensor(shape=[-1, -1]), "inputs[0].shape [-1, -1] does not fit 1 texts"),
        (tensor(shape=[0], data=[]), "inputs[0].data: at least one text is needed"),
        (tensor(data=[""]), "inputs[0].data[0]: String should have at least 1 character"),
        (tensor(shape=[]), "inputs[0].shape: List should have at least 1 item"),
        (tensor(shape=[1, 1, 1]), "inputs[0].shape: List should have at most 2 items"),
        (tensor(name="ids"), "inputs: ids; expected text, each once"),
        (tensor(datatype="INT64", data=[1]), "inputs[0].datatype: Input should be 'BYTES'"),
        (tensor(data=None), "inputs[0].data: send it either there or in binary"),
        (
            tensor(parameters={"shared_memory_region": "r"}),
            "inputs[0].parameters.shared_memory_region: unknown field",
        ),
        (tensor(parameters={"content_type": "np"}), "inputs[0].parameters.content_type: Input"),
        (
            infer_body(outputs=[{"name": "embedding", "parameters": {"classification": 3}}]),
            "outputs[0].parameters.classification: unknown field",
        ),
        (
            infer_body(parameters={"sequence_id": 7}),
            "parameters.sequence_id: unknown field",
        ),
        ({"inputs": []}, "inputs: List should have at least 1 item"),
        ({"inputs": tensor()["inputs"] * 2}, "inputs: text, text; expected text, each once"),
        ({}, "inputs: Field required"),
        (infer_body(binary=True), "binary: unknown field"),
        (infer_body(parameters={"speed": 1}), "parameters.speed: unknown field"),
        (
            infer_body(parameters={"dimensions": 0}),
            "parameters.dimensions: Input should be greater",
        ),
        (infer_body(parameters={"dimensions": 9}), "dimensions is 9"),
        (infer_body(outputs=[{"name": "logits"}]), "outputs: unknown logits; known: embedding"),
        (infer_body(*["x"] * 257), "257 inputs; at most 256 in one request"),
        (infer_body("x" * 99), "a text is too long"),
    ],
)
async def test_a_wrong_body_is_refused(site, body, message: str) -> None:
    answer = await site.client.post(MINILM_INFER, json=body)
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(message)


async def test_null_leaves_a_field_out(site) -> None:
    body = infer_body("a cat", id=None, parameters=None, outputs=None)
    answer = (await site.client.post(MINILM_INFER, json=body)).json()
    assert "id" not in answer
    assert [output["name"] for output in answer["outputs"]] == ["embedding"]


async def test_a_request_for_unknown_outputs_is_counted_under_its_variant(site) -> None:
    body = infer_body(outputs=[{"name": "logits"}])
    answer = await site.client.post(MINILM_INFER, json=body)
    assert answer.headers["X-Variant"] == "int4"
    assert site.counted() == {(Labels("minilm", "int4", "embeddings"), "422"): 1}


@pytest.mark.parametrize("open_", [lambda: open_gateway([SMOLLM2]), lambda: open_replica(SMOLLM2)])
class TestGenerators:
    async def test_metadata_claims_no_tensors(self, open_) -> None:
        answer = (await open_().client.get("/v2/models/smollm2/versions/int4")).json()
        assert (answer["name"], answer["inputs"], answer["outputs"]) == ("smollm2", [], [])

    async def test_readiness(self, open_) -> None:
        answer = await open_().client.get("/v2/models/smollm2/versions/int4/ready")
        assert answer.json() == {"name": "smollm2", "version": "int4", "ready": True}

    async def test_inference_points_to_the_routes_that_generate(self, open_) -> None:
        path = "/v2/models/smollm2/versions/int4/infer"
        answer = await open_().client.post(path, json=infer_body(outputs=[{"name": "label"}]))
        assert answer.status_code == 422
        assert answer.json()["error"] == (
            "model 'smollm2' serves generation, which has no tensors; use "
            "POST /v1/completions or /v1/chat/completions"
        )
