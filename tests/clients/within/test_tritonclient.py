"""Triton's HTTP client: binary tensors and not, metadata, readiness, repository, errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

TEXTS = ["a good film", "the worst plot of the year — déjà vu"]
FORMS = [(there, back) for there in (True, False) for back in (True, False)]


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(url.removeprefix("http://")) as made:
        yield made


def tensor_of(texts: list[str], is_binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array(texts, dtype=object), binary_data=is_binary)
    return tensor


def embed(client: triton.InferenceServerClient, texts: list[str], **options: Any) -> np.ndarray:
    answer = client.infer("minilm", [tensor_of(texts)], model_version="fp32", **options)
    vectors = answer.as_numpy("embedding")
    assert vectors is not None
    return vectors


@pytest.fixture(scope="module")
def vectors(client: triton.InferenceServerClient) -> np.ndarray:
    """Answered with neither an output nor a parameter."""
    found = embed(client, TEXTS)
    assert found.shape == (2, 384)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    return found


def test_health(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()


def test_metadata(client: triton.InferenceServerClient) -> None:
    server = client.get_server_metadata()
    assert server["name"] == "quantserve"
    assert "binary_tensor_data" in server["extensions"]
    model = client.get_model_metadata("minilm", "fp32")
    assert model["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert model["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}]


def test_readiness_and_the_index_tell_of_the_same_versions(
    client: triton.InferenceServerClient,
) -> None:
    index = client.get_model_repository_index()
    known = {(entry["name"], entry["version"]) for entry in index}
    assert {("minilm", "fp32"), ("minilm", "int8-dynamic"), ("smollm2", "q4_1")} <= known
    for name, version in known:
        assert client.is_model_ready(name, version)
        assert version in client.get_model_metadata(name)["versions"]
    assert client.is_model_ready("minilm")
    assert not client.is_model_ready("nosuch")
    assert not client.is_model_ready("minilm", "nosuch")


@pytest.mark.parametrize(("there", "back"), FORMS)
def test_tensors_in_binary_and_not(
    client: triton.InferenceServerClient, vectors: np.ndarray, there: bool, back: bool
) -> None:
    answer = client.infer(
        "minilm",
        [tensor_of(TEXTS, there)],
        model_version="fp32",
        outputs=[triton.InferRequestedOutput("embedding", binary_data=back)],
        request_id="mine",
        priority=1,
        timeout=1_000_000,
    )
    described = answer.get_output("embedding")
    assert answer.get_response()["id"] == "mine"
    assert answer.get_response()["model_version"] == "fp32"
    assert ("data" in described) != back
    np.testing.assert_allclose(answer.as_numpy("embedding"), vectors, atol=1e-7)


def test_outputs_of_both_kinds_in_one_answer(client: triton.InferenceServerClient) -> None:
    wanted = [
        triton.InferRequestedOutput("label", binary_data=True),
        triton.InferRequestedOutput("score", binary_data=False),
        triton.InferRequestedOutput("scores", binary_data=True),
    ]
    answer = client.infer("sentiment", [tensor_of(TEXTS)], outputs=wanted)
    labels, scores = answer.as_numpy("label"), answer.as_numpy("scores")
    assert [label.decode() for label in labels] == ["positive", "negative"]
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(answer.as_numpy("score"), scores.max(1), atol=1e-6)


def test_parameters(client: triton.InferenceServerClient, vectors: np.ndarray) -> None:
    short = embed(client, TEXTS, parameters={"dimensions": 64})
    expected = vectors[:, :64] / np.linalg.norm(vectors[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, atol=1e-6)
    with pytest.raises(InferenceServerException, match="nosuch"):
        embed(client, TEXTS, parameters={"nosuch": 1})


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed(
    client: triton.InferenceServerClient, vectors: np.ndarray, algorithm: str
) -> None:
    found = embed(
        client,
        TEXTS,
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_allclose(found, vectors, atol=1e-7)


def test_several_at_once(client: triton.InferenceServerClient, vectors: np.ndarray) -> None:
    asked = [
        client.async_infer("minilm", [tensor_of([text])], model_version="fp32") for text in TEXTS
    ]
    found = [one.get_result().as_numpy("embedding")[0] for one in asked]
    np.testing.assert_allclose(found, vectors, atol=1e-5)  # not padded to one length


async def test_asyncio(url: str, vectors: np.ndarray) -> None:
    async with triton_aio.InferenceServerClient(url.removeprefix("http://")) as client:
        assert await client.is_model_ready("minilm", "fp32")
        answer = await client.infer("minilm", [tensor_of(TEXTS)], model_version="fp32")
    np.testing.assert_allclose(answer.as_numpy("embedding"), vectors, atol=1e-7)


def test_errors_are_the_client_s(client: triton.InferenceServerClient) -> None:
    tensor = tensor_of(TEXTS)
    with pytest.raises(InferenceServerException, match="nosuch") as caught:
        client.infer("nosuch", [tensor])
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="chat/completions"):
        client.infer("smollm2", [tensor])
    with pytest.raises(InferenceServerException, match="no route"):
        client.get_model_config("minilm")
    tensor.set_shared_memory("region", 64)
    with pytest.raises(InferenceServerException, match="shared_memory"):
        client.infer("minilm", [tensor])
