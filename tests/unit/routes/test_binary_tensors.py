"""Tensors in binary, as Triton's clients send and read them; written and read here with numpy."""

import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest

from serving.errors import InvalidField
from serving.routes.binary_tensors import read_texts, to_binary
from serving.routes.infer_bodies import JSON_LENGTH
from tests.unit.routes.sites import SENTIMENT, Site, infer_body, open_replica

INFER = "/v2/models/minilm/versions/int4/infer"
CLASSIFY = "/v2/models/sentiment/versions/int4/infer"


def elements(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def binary_request(*texts: bytes, **changes: Any) -> tuple[bytes, bytes]:
    """JSON and data of a request whose texts follow in binary."""
    data = elements(*texts)
    tensor = {
        "name": "text",
        "shape": [len(texts)],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(data)},
    }
    return json.dumps({"inputs": [tensor], **changes}).encode(), data


async def send(site: Site, head: bytes, data: bytes, path: str = INFER) -> httpx.Response:
    headers = {JSON_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
    return await site.client.post(path, content=head + data, headers=headers)


def split(response: httpx.Response) -> tuple[Any, bytes]:
    length = int(response.headers[JSON_LENGTH])
    assert response.headers["content-type"] == "application/octet-stream"
    return json.loads(response.content[:length]), response.content[length:]


async def test_texts_in_binary_are_those_of_the_json(site) -> None:
    response = await send(site, *binary_request(b"a cat", "Käse".encode()))
    expected = await site.client.post(INFER, json=infer_body("a cat", "Käse"))
    assert (response.status_code, response.json()) == (200, expected.json())
    assert [request.inputs for request in site.backend().requests] == [("a cat", "Käse")] * 2


BINARY_OUTPUTS: list[dict[str, Any]] = [
    {"parameters": {"binary_data_output": True}},
    {"outputs": [{"name": "embedding", "parameters": {"binary_data": True}}]},
]


@pytest.mark.parametrize("changes", BINARY_OUTPUTS)
async def test_vectors_come_back_in_binary(site, changes: dict[str, Any]) -> None:
    plain = (await site.client.post(INFER, json=infer_body("a cat", "dog"))).json()
    content, data = split(await send(site, *binary_request(b"a cat", b"dog", **changes)))
    [output] = content["outputs"]
    assert output == {
        "name": "embedding",
        "datatype": "FP32",
        "shape": [2, 8],
        "parameters": {"binary_data_size": 2 * 8 * 4},
    }
    found = np.frombuffer(data, "<f4").tolist()
    # JSON has the shortest digits that give the same float32 again.
    assert found == [float(np.float32(value)) for value in plain["outputs"][0]["data"]]


async def test_labels_come_back_in_binary_beside_scores_in_json() -> None:
    outputs = [
        {"name": "label", "parameters": {"binary_data": True}},
        {"name": "score", "parameters": {"binary_data": False}},
        {"name": "scores"},
    ]
    changes = {"outputs": outputs, "parameters": {"binary_data_output": True}}
    site = open_replica(SENTIMENT)
    plain = (await site.client.post(CLASSIFY, json=infer_body("good", "bad"))).json()["outputs"]
    content, data = split(await send(site, *binary_request(b"good", b"bad", **changes), CLASSIFY))
    label, score, scores = content["outputs"]
    assert score == plain[1]
    size = label["parameters"]["binary_data_size"]
    assert data[:size] == elements(*(name.encode() for name in plain[0]["data"]))
    assert scores["parameters"] == {"binary_data_size": 2 * 2 * 4}
    assert len(data) == size + 2 * 2 * 4


async def test_an_output_that_says_no_is_sent_in_json(site) -> None:
    outputs = [{"name": "embedding", "parameters": {"binary_data": False}}]
    body = infer_body(outputs=outputs, parameters={"binary_data_output": True})
    response = await site.client.post(INFER, json=body)
    assert JSON_LENGTH not in response.headers
    assert len(response.json()["outputs"][0]["data"]) == 8


@pytest.mark.parametrize("content_type", [None, "application/octet-stream", "text/plain"])
async def test_no_json_content_type_is_needed(site, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    content = json.dumps(infer_body("a cat")).encode()
    response = await site.client.post(INFER, content=content, headers=headers)
    assert response.status_code == 200


async def test_what_triton_s_client_adds_changes_nothing(site) -> None:
    body = infer_body("a cat", parameters={"priority": 3, "timeout": 1_000_000})
    body["inputs"][0]["parameters"] = {"content_type": "str"}
    plain = await site.client.post(INFER, json=infer_body("a cat"))
    assert (await site.client.post(INFER, json=body)).json() == plain.json()


async def test_an_error_is_json_as_ever(site) -> None:
    head, data = binary_request(b"a", outputs=[{"name": "logits"}])
    response = await send(site, head, data)
    assert response.status_code == 422
    assert response.json()["error"].startswith("outputs: unknown logits")


def without_size() -> tuple[bytes, bytes]:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES"}
    return json.dumps({"inputs": [tensor]}).encode(), b""


HEAD, DATA = binary_request(b"a cat")


@pytest.mark.parametrize(
    ("head", "data", "message"),
    [
        (HEAD, DATA + b"x", "10 bytes follow the JSON, but binary_data_size of the inputs adds up"),
        (HEAD, DATA[:-1], "8 bytes follow the JSON, but binary_data_size of the inputs adds up"),
        (HEAD, struct.pack("<I", 9) + b"a cat", "inputs[0]: element 0 goes beyond the end"),
        (*binary_request(b"a", b"\xff"), "inputs[0]: element 1 is no UTF-8"),
        (*binary_request(b"a", b""), "inputs[0]: element 1 is empty"),
        (*without_size(), "inputs[0].data: send it either there or in binary"),
        (HEAD.replace(b'"BYTES"', b'"BYTES", "data": ["a"]'), DATA, "inputs[0].data: send it"),
        (HEAD.replace(b"[1]", b"[2]"), DATA, "inputs[0].shape [2] does not fit 1 texts"),
    ],
)
async def test_what_does_not_fit_together_is_refused(site, head, data, message: str) -> None:
    response = await send(site, head, data)
    assert response.status_code == 422
    assert response.json()["error"].startswith(message)
    assert site.backend().requests == []


@pytest.mark.parametrize("length", ["", "x", "-1", "²", "9" * 30, "100000", "3"])
async def test_a_length_that_cannot_be_is_400(site, length: str) -> None:
    headers = {JSON_LENGTH.encode(): length.encode("latin-1")}
    response = await site.client.post(INFER, content=HEAD + DATA, headers=headers)
    assert response.status_code == 400
    assert list(response.json()) == ["error"]


def test_elements_that_are_cut_anywhere_are_refused() -> None:
    whole = elements(b"ab", b"c")
    for length in range(1, len(whole)):
        cut = whole[:length]
        if cut == elements(b"ab"):
            continue
        with pytest.raises(InvalidField, match=r"^inputs\[0\]: element [01] goes beyond"):
            read_texts(cut, "inputs[0]")


def test_texts_survive_the_way_there_and_back() -> None:
    texts = ["a", "Käse", "x" * 70_000, "\0"]
    assert read_texts(to_binary(texts, "BYTES"), "x") == texts


def test_numbers_are_little_endian_row_by_row() -> None:
    values = np.array([[1, 2], [3, 4]], ">f4").T
    assert np.frombuffer(to_binary(values, "FP32"), "<f4").tolist() == [1, 3, 2, 4]
