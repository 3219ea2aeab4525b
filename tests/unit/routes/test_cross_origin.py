"""Pages of other origins: shut out unless the configuration names theirs."""

import pytest

from tests.unit.routes.sites import EMBEDDINGS, embeddings_body

ORIGIN = "https://pages.example"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-variant",
}


async def test_off_by_default(site) -> None:
    response = await site.client.post(
        EMBEDDINGS, json=embeddings_body(), headers={"Origin": ORIGIN}
    )
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("access-control")]
    assert (await site.client.options(EMBEDDINGS, headers=PREFLIGHT)).status_code == 405


@pytest.mark.parametrize("origins", [[ORIGIN], ["*"], ["http://localhost:3000", ORIGIN]])
async def test_a_preflight_needs_no_key(open_site, origins: list[str]) -> None:
    site = open_site(api_key="k", cors_origins=origins)
    response = await site.client.options(EMBEDDINGS, headers=PREFLIGHT)
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] in (ORIGIN, "*")
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    allowed = response.headers["Access-Control-Allow-Headers"]
    assert {"authorization", "content-type", "x-variant"} <= set(allowed.split(","))
    assert site.counted() == {}


async def test_an_answer_and_its_headers_may_be_read(open_site) -> None:
    site = open_site(cors_origins=[ORIGIN])
    response = await site.client.post(
        EMBEDDINGS, json=embeddings_body(), headers={"Origin": ORIGIN}
    )
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Server-Timing" in response.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in response.headers


async def test_so_may_a_refusal(open_site) -> None:
    site = open_site(api_key="k", cors_origins=[ORIGIN])
    response = await site.client.get("/v1/models", headers={"Origin": ORIGIN})
    assert response.status_code == 401
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


async def test_another_origin_is_not_let_in(open_site) -> None:
    site = open_site(cors_origins=[ORIGIN])
    other = {**PREFLIGHT, "Origin": "https://evil.example"}
    refused = await site.client.options(EMBEDDINGS, headers=other)
    assert (refused.status_code, refused.text) == (400, "Disallowed CORS origin")
    # By which HAProxy tells it from what could not be read (``app/haproxy_answers.py``).
    assert "Access-Control-Allow-Methods" in refused.headers
    response = await site.client.get("/v1/models", headers={"Origin": other["Origin"]})
    assert "Access-Control-Allow-Origin" not in response.headers
