"""Slashes, HEAD, compressed bodies, HTTP/1.0: the same request in other forms, the same answer."""

import asyncio
import gzip
import json
import zlib

import pytest
from starlette.types import Message

from serving.errors import Malformed, TooLarge
from serving.routes.plain_requests import inflate
from tests.unit.routes.sites import (
    EMBEDDINGS,
    MODELS,
    SMOLLM2,
    embeddings_body,
    infer_body,
    open_gateway,
)

BODY = json.dumps(embeddings_body()).encode()
JSON_TYPE = {"Content-Type": "application/json"}


@pytest.mark.parametrize("path", ["/v1/embeddings/", "//v1/embeddings", "/v1//embeddings///"])
async def test_slashes_too_many_change_nothing(site, path: str) -> None:
    expected = await site.client.post(EMBEDDINGS, json=embeddings_body())
    # An absolute address, for httpx would join "//v1" to one with the host v1.
    url = str(site.client.base_url).rstrip("/") + path
    response = await site.client.post(url, json=embeddings_body())
    assert (response.status_code, response.json()) == (200, expected.json())


async def test_a_path_below_a_variant_may_have_them_too(gateway) -> None:
    body = infer_body()
    response = await gateway.client.post("/minilm//int4/v2/models/minilm/infer/", json=body)
    assert response.headers["X-Variant"] == "int4"


async def test_a_path_with_slashes_too_many_needs_the_key(open_site) -> None:
    client = open_site(api_key="k").client
    for path in ("/v1/models/", "/v1//models", "/healthz/../v1/models"):
        assert (await client.get(path)).status_code == 401


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/minilm:int4", "/v2", "/v2/models/minilm", "/docs"]
)
async def test_head_is_get_without_the_body(site, path: str) -> None:
    whole, head = await site.client.get(path), await site.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type"):
        assert head.headers[name] == whole.headers[name]
    assert int(head.headers["content-length"]) == len(whole.content)


async def test_head_is_logged_as_head(site, log) -> None:
    await site.client.head("/v1/models")
    assert log.messages[0].startswith("HEAD /")


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
    ],
)
async def test_a_compressed_body_is_read(site, encoding: str, compress) -> None:
    headers = {**JSON_TYPE, "Content-Encoding": encoding}
    response = await site.client.post(EMBEDDINGS, content=compress(BODY), headers=headers)
    expected = await site.client.post(EMBEDDINGS, content=BODY, headers=JSON_TYPE)
    assert (response.status_code, response.json()) == (200, expected.json())


async def test_a_bomb_is_413(open_site) -> None:
    site = open_site(max_body_bytes=1_024)
    bomb = gzip.compress(b" " * 800_000)
    assert len(bomb) <= 1_024
    headers = {**JSON_TYPE, "Content-Encoding": "gzip"}
    response = await site.client.post(EMBEDDINGS, content=bomb, headers=headers)
    assert response.status_code == 413
    assert "the inflated body has more than 1024 bytes" in response.json()["error"]["message"]
    assert site.backend().requests == []


@pytest.mark.parametrize(
    ("encoding", "content", "why"),
    [
        ("br", BODY, "'br' is not read here; send gzip or deflate"),
        ("gzip, gzip", BODY, "'gzip, gzip' is not read here"),
        ("gzip", BODY, "says gzip, which the body is not: "),
        ("gzip", gzip.compress(BODY, mtime=0)[:-9], "it is cut off"),
        ("gzip", gzip.compress(BODY, mtime=0) + b"x", "says gzip, which the body is not: "),
        ("deflate", BODY, "says deflate, which the body is not: "),
    ],
)
async def test_what_cannot_be_inflated_is_400(site, encoding, content, why: str) -> None:
    headers = {**JSON_TYPE, "Content-Encoding": encoding}
    response = await site.client.post(EMBEDDINGS, content=content, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "content-encoding"
    assert why in response.json()["error"]["message"]


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_the_limit_counts_inflated_bytes_exactly(compress) -> None:
    assert inflate(compress(b"x" * 5_000), "gzip", 5_000) == b"x" * 5_000
    with pytest.raises(TooLarge):
        inflate(compress(b"x" * 5_001), "gzip", 5_000)


def test_members_of_a_gzip_file_follow_each_other() -> None:
    members = gzip.compress(b"ab") + gzip.compress(b"") + gzip.compress(b"cd")
    assert inflate(members, "gzip", 4) == b"abcd"
    with pytest.raises(TooLarge):
        inflate(members, "gzip", 3)


def test_a_body_without_encoding_is_left_as_it_is() -> None:
    for encoding in ("", "identity", " Identity "):
        assert inflate(b"{}", encoding, 1) == b"{}"


def test_an_empty_body_is_no_gzip_but_has_nothing_to_inflate() -> None:
    for encoding in ("gzip", "br"):
        assert inflate(b"", encoding, 10) == b""


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_http_1_0_gets_an_answer_of_known_length(is_streamed: bool) -> None:
    """It has no chunks, so a server would send it their frames as if they were text."""
    sent: list[Message] = []
    fields = {"model": "smollm2:int4", "prompt": "a cat", "stream": is_streamed}
    to_come: asyncio.Queue[Message] = asyncio.Queue()
    to_come.put_nowait({"type": "http.request", "body": json.dumps(fields).encode()})

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.0",
        "method": "POST",
        "path": "/v1/completions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await open_gateway((*MODELS, SMOLLM2)).edge(scope, to_come.get, send)
    start, end = sent
    assert start["status"] == 200
    assert int(dict(start["headers"])[b"content-length"]) == len(end["body"])
    assert end["body"].endswith(b"data: [DONE]\n\n" if is_streamed else b"}")


def test_a_body_that_is_cut_off_anywhere_is_malformed() -> None:
    whole = gzip.compress(BODY)
    for length in range(1, len(whole)):
        with pytest.raises(Malformed):
            inflate(whole[:length], "gzip", 10_000)
