"""``/v1/reports``: only load tests of the configured folder, and their real comparison."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from serving.config import ServerConfig
from serving.metrics import EdgeMetrics
from serving.routes.api import build_gateway_api
from serving.routes.services import Services
from tests.unit.fakes.backends import FakeBackends
from tests.unit.routes.sites import MODELS, _client

SHIPPED = Path(__file__).parents[3] / "docs" / "reports"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two load tests, and beside the folder what nobody shall read."""
    reports = tmp_path / "reports"
    for name in ("peak", "compare"):
        shutil.copytree(SHIPPED / name, reports / name)
    (tmp_path / "secret").mkdir()
    for file in ("results.json", "report.html"):
        shutil.copy(SHIPPED / "peak" / file, tmp_path / "secret" / file)
    (tmp_path / "report.html").write_text("secret")
    return reports


@pytest.fixture
def client(folder: Path) -> Any:
    return client_of(folder)


def client_of(folder: Path | None) -> Any:
    async def metrics_page() -> str:
        return ""

    catalog = {model.name: model for model in MODELS}
    services = Services(catalog, FakeBackends(MODELS), ServerConfig(), reports=folder)
    return _client(build_gateway_api(services, EdgeMetrics("gateway-1"), metrics_page), "")


async def test_the_latest_comes_first(client) -> None:
    data = (await client.get("/v1/reports")).json()["data"]
    assert {entry["name"] for entry in data} == {"peak", "compare"}
    started = [entry["started_at"] for entry in data]
    assert started == sorted(started, reverse=True)
    (compare,) = [entry for entry in data if entry["name"] == "compare"]
    assert compare["models"] == ["minilm", "sentiment", "smollm2"]
    assert compare["has_page"]
    assert compare["problems"] == []


async def test_no_answer_names_a_folder_of_the_machine(client, folder: Path) -> None:
    for path in ("/v1/reports", "/v1/reports/page?name=other"):
        assert str(folder) not in (await client.get(path)).text


async def test_what_is_no_load_test_is_passed_over(client, folder: Path) -> None:
    for number, text in enumerate(["", "[]", "{}", '{"scenarios": 1}', "nothing"]):
        other = folder / f"other-{number}"
        other.mkdir()
        (other / "results.json").write_text(text)
    (folder / "results.json").write_text("{}")
    assert len((await client.get("/v1/reports")).json()["data"]) == 2


async def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    answer = await client_of(tmp_path / "nothing").get("/v1/reports")
    assert (answer.status_code, answer.json()["data"]) == (200, [])


async def test_a_report_comes_as_it_is_and_may_run_nothing(client, folder: Path) -> None:
    answer = await client.get("/v1/reports/page", params={"name": "compare"})
    assert answer.content == (folder / "compare" / "report.html").read_bytes()
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "..",
        ".",
        "",
        "/etc",
        "compare/../../secret",
        "compare/",
        "%2e%2e/secret",
        "a\0b",
    ],
)
async def test_no_other_path_is_opened(client, name: str) -> None:
    answer = await client.get("/v1/reports/page", params={"name": name})
    assert answer.status_code == 404
    assert answer.json()["error"]["param"] == "name"
    for pair in ({"before": name, "after": "peak"}, {"before": "peak", "after": name}):
        assert (await client.get("/v1/reports/changes", params=pair)).status_code == 404


async def test_a_link_that_leads_elsewhere_is_not_followed(client, folder: Path) -> None:
    (folder / "linked").symlink_to(folder.parent / "secret")
    names = {entry["name"] for entry in (await client.get("/v1/reports")).json()["data"]}
    assert "linked" not in names
    answer = await client.get("/v1/reports/page", params={"name": "linked"})
    assert answer.status_code == 404


async def test_a_run_without_its_page_says_how_to_make_it(client, folder: Path) -> None:
    (folder / "peak" / "report.html").unlink()
    answer = await client.get("/v1/reports/page", params={"name": "peak"})
    assert answer.status_code == 404
    assert "quantserve report peak" in answer.json()["error"]["message"]


async def test_two_runs_are_compared_as_the_command_does(client, folder: Path) -> None:
    shutil.copytree(folder / "compare", folder / "later")
    results = json.loads((folder / "later" / "results.json").read_text())
    results["started_at"] = "2026-11-23T00:00:00+00:00"
    (folder / "later" / "results.json").write_text(json.dumps(results))
    answer = await client.get(
        "/v1/reports/changes", params={"before": "compare", "after": "later"}, timeout=120
    )
    assert answer.status_code == 200, answer.text
    assert "Comparison of two load tests" in answer.text
    assert "within noise" in answer.text  # a run beside itself
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


async def test_what_cannot_be_compared_is_told_in_the_commands_words(client, folder: Path) -> None:
    broken = json.loads((folder / "peak" / "results.json").read_text())
    del broken["conditions"]
    (folder / "peak" / "results.json").write_text(json.dumps(broken))
    answer = await client.get("/v1/reports/changes", params={"before": "peak", "after": "compare"})
    assert answer.status_code == 422
    assert "conditions" in answer.json()["error"]["message"]
    assert "Traceback" not in answer.text
    assert "peak/results.json" in answer.text
    assert str(folder) not in answer.text
