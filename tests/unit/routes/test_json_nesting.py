"""Bodies that are nested too deep are refused before anything parses them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.routes.json_nesting import MAX_NESTING, is_too_deep
from tests.unit.routes.sites import EMBEDDINGS, Site, embeddings_body, infer_body

INFER = "/v2/models/minilm/versions/int4/infer"
JSON_TYPE = {"Content-Type": "application/json"}
LIMIT = f"nested more than {MAX_NESTING} deep"


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("levels", [MAX_NESTING + 1, 700, 100_000])
@pytest.mark.parametrize(
    ("path", "body"),
    [(EMBEDDINGS, embeddings_body()), (INFER, infer_body()), ("/v2/repository/index", {})],
)
async def test_a_body_that_is_too_deep_is_malformed(
    gateway: Site, path: str, body: dict[str, object], levels: int
) -> None:
    content = json.dumps({**body, "metadata": 0}).replace('"metadata": 0', f'"x": {nested(levels)}')
    response = await gateway.client.post(path, content=content, headers=JSON_TYPE)
    assert response.status_code == 400
    assert LIMIT in response.text


async def test_as_deep_as_may_be(site: Site) -> None:
    body = embeddings_body(metadata={"a": json.loads(nested(MAX_NESTING - 2))})
    response = await site.client.post(EMBEDDINGS, json=body)
    assert response.status_code == 200, response.text


async def test_brackets_in_texts_and_in_binary_tensors_are_no_nesting(site: Site) -> None:
    brackets = '[{"\\' * 1_000
    body = embeddings_body(input=brackets, truncate=True)
    response = await site.client.post(EMBEDDINGS, json=body)
    assert response.status_code == 200, response.text
    data = len(brackets).to_bytes(4, "little") + brackets.encode()
    parameters = {"binary_data_size": len(data)}
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": parameters}
    head = json.dumps({"inputs": [tensor], "parameters": {"truncate": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    response = await site.client.post(INFER, content=head + data, headers=headers)
    assert response.status_code == 200, response.text


VALUES = st.recursive(
    st.text(alphabet='[]{}"\\a∛≁', max_size=9),  # two have a quote among their bytes in UTF-16
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('["\\'), inner, max_size=2),
)


@given(VALUES, st.booleans(), st.sampled_from(["utf-8", "utf-16", "utf-16-le", "utf-32"]))
def test_depth_is_that_of_the_value(value: object, escapes: bool, encoding: str) -> None:
    inner = f"[{json.dumps(value, ensure_ascii=escapes)}, {json.dumps('[' * 300)}]"
    around = MAX_NESTING - depth([value])
    for levels, expected in ((around, False), (around + 1, True)):
        text = "[" * levels + inner + "]" * levels
        assert is_too_deep(text.encode(encoding)) == expected


def depth(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@pytest.mark.parametrize("body", [b"", b"\xff" + b"[" * 999, b"[" * 200, b'"' * 999])
def test_what_is_no_json_is_left_to_the_parser(body: bytes) -> None:
    assert not is_too_deep(body)
