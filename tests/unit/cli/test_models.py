"""``quantserve models`` prints what a running service holds."""

import re

import httpx
import pytest

from tests.unit.cli.conftest import Run
from tests.unit.routes.sites import open_gateway


@pytest.fixture
async def answer() -> httpx.Response:
    """What a gateway answers while one variant cannot be loaded."""
    gateway = open_gateway()
    gateway.backends.reasons["minilm", "int4"] = "failed: OSError: disk"
    return await gateway.client.get("/v1/models")


@pytest.fixture
def service(answer: httpx.Response, monkeypatch) -> list[tuple[str, dict[str, str]]]:
    """The running service; notes every request's address and headers."""
    requests = []

    def request(
        method: str, url: str, headers: dict[str, str], timeout: float, params: dict[str, str]
    ) -> httpx.Response:
        requests.append((url, headers))
        return answer

    monkeypatch.setattr(httpx, "request", request)
    return requests


def test_every_variant_has_a_row(run: Run, service) -> None:
    result = run("models", "--url", "http://there:1/")
    assert result.exit_code == 0
    assert service == [("http://there:1/v1/models", {})]
    rows = dict(re.findall(r"^\s*((?:minilm|sentiment):\S+)\s+(.+?)\s*$", result.stdout, re.M))
    assert list(rows) == [
        "minilm:fp32",
        "minilm:bf16",
        "minilm:int4",
        "sentiment:fp32",
        "sentiment:int4",
    ]
    assert "failed: OSError: disk" in rows["minilm:int4"]
    assert rows["minilm:bf16"].startswith("default ")
    assert rows["sentiment:fp32"].startswith("default reference ")
    assert all("1.5" in row for name, row in rows.items() if name != "minilm:int4")


def test_the_key_comes_from_the_environment(run: Run, service, monkeypatch) -> None:
    monkeypatch.setenv("QUANTSERVE_SERVER__API_KEY", "hush")
    result = run("models")
    assert service[0][1] == {"Authorization": "Bearer hush"}
    assert "hush" not in result.output


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError("refused"), httpx.InvalidURL("no"), ValueError("not JSON")]
)
def test_no_answer_prints_one_message(run: Run, monkeypatch, failure: Exception) -> None:
    def request(method: str, url: str, **arguments: object) -> httpx.Response:
        raise failure

    monkeypatch.setattr(httpx, "request", request)
    result = run("models")
    assert result.exit_code == 1
    assert "http://127.0.0.1:8000/v1/models: no answer from a running service" in result.stderr
    assert "Traceback" not in result.stderr


def test_brackets_in_a_reason_are_printed(run: Run, service, answer: httpx.Response) -> None:
    answer._content = answer.content.replace(b"OSError: disk", b"OSError: [int4] disk")
    assert "OSError: [int4] disk" in run("models").stdout


def test_several_replicas_are_told(run: Run, service, answer: httpx.Response) -> None:
    answer._content = answer.content.replace(b'"replicas":1', b'"replicas":2')
    assert "ready ×2" in run("models").stdout
