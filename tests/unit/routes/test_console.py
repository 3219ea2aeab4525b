"""The console's files: what is served, to whom, and what they may do in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from serving.console import FOLDER
from serving.routes.console import POLICY, read_files
from tests.unit.routes.sites import open_gateway, open_replica

MOST_BYTES = 300_000

OWN = sorted(
    path
    for path in FOLDER.rglob("*")
    if path.suffix in (".html", ".js", ".css") and "vendor" not in path.parts
)


@pytest.mark.parametrize("path", read_files())
async def test_every_file_comes_without_a_key_and_under_the_policy(path: str) -> None:
    site = open_gateway(api_key="secret")
    answer = await site.client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    kinds = {"/": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    assert answer.headers["content-type"].startswith(kinds[path.rpartition(".")[2]])
    again = await site.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/console/../config.py",
        "/console/%2e%2e/config.py",
        "/console/__init__.py",
        "/console/pages",
    ],
)
async def test_no_other_file_comes(path: str) -> None:
    answer = await open_gateway().client.get(path)
    assert answer.status_code == 404


async def test_what_the_console_shows_needs_the_key() -> None:
    site = open_gateway(api_key="secret")
    for path in ("/v1/models", "/v1/live", "/v1/auto?model=minilm", "/v1/quality", "/v1/reports"):
        assert (await site.client.get(path)).status_code == 401


async def test_a_replica_has_no_console() -> None:
    assert (await open_replica().client.get("/")).status_code == 404


def test_it_is_small() -> None:
    assert sum(len(file.content) for file in read_files().values()) < MOST_BYTES


def test_the_policy_lets_nothing_in_from_elsewhere() -> None:
    sources = {part.split()[0]: part.split()[1:] for part in POLICY.split("; ")}
    assert sources.pop("img-src") == ["'self'", "data:"]
    assert sources["default-src"] == ["'none'"]
    assert {source for given in sources.values() for source in given} == {"'self'", "'none'"}


@pytest.mark.parametrize("path", OWN, ids=lambda path: str(path.relative_to(FOLDER)))
def test_no_file_names_another_host_or_needs_an_inline_style(path: Path) -> None:
    text = path.read_text()
    # An XML namespace is a name, not an address that is asked.
    assert not re.findall(r"https?://(?!www\.w3\.org/)", text)
    assert not re.search(r"<[a-z][^<>]*\sstyle=", text)
    assert not re.search(r"\bon[a-z]+=\"", text)


def test_every_file_that_the_page_or_a_module_names_is_there() -> None:
    served = read_files()
    index = (FOLDER / "index.html").read_text()
    named = set(re.findall(r'(?:src|href)="(/console/[^"]+)"', index))
    for path in OWN:
        if path.suffix == ".js":
            for name in re.findall(r'from "(\.[^"]+)"', path.read_text()):
                target = (path.parent / name).resolve().relative_to(FOLDER)
                named.add(f"/console/{target.as_posix()}")
    assert named
    assert named <= set(served)
