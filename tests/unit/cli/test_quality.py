"""``quantserve quality`` and ``quantserve evaluate`` over a service that answers what they show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from serving.cli import evaluate
from serving.seams.quality import (
    EvaluationProgress,
    ModelQuality,
)
from tests.unit.cli.conftest import Run
from tests.unit.cli.quality_answers import (
    CHANGE,
    FRESH,
    INT8,
    SENTIMENT,
    entry,
    model,
    with_history,
)


class Service:
    """Answers with one list of entries after the other, the last one again and again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: ModelQuality) -> None:
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.refusal: httpx.Response | None = None
        self.history: list[dict[str, Any]] = []
        self.models = [model("fp32"), model("int8-dynamic")]
        self._answers = list(answers)
        monkeypatch.setattr(httpx, "request", self._answer)
        monkeypatch.setattr(evaluate, "POLL_S", 0)

    def _answer(
        self, method: str, url: str, headers: dict[str, str], timeout: float, **content: Any
    ) -> httpx.Response:
        self.requests.append((method, url, content))
        if self.refusal is not None:
            return self.refusal
        if method == "POST":
            return httpx.Response(202, json={"model": "sentiment", "state": "running"})
        if url.endswith("/v1/models"):
            return httpx.Response(200, json={"object": "list", "data": self.models})
        now = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        data = {**entry(now), "history": self.history}
        return httpx.Response(200, json={"object": "list", "data": [data]})


def at(state: Any, done: int = 0, reason: str = "") -> ModelQuality:
    return replace(SENTIMENT, evaluation=EvaluationProgress(state, done, 3_922, reason))


def test_quality_prints_every_table(run: Run, monkeypatch) -> None:
    service = Service(monkeypatch, at("running", 120))
    result = run("quality", "--url", "http://there:1/", "--model", "sentiment")
    assert result.exit_code == 0
    url = "http://there:1/v1/quality"
    assert service.requests == [
        ("GET", url, {"params": {"model": "sentiment"}}),
        ("GET", "http://there:1/v1/models", {"params": {}}),
    ]
    for shown in (INT8.reason, "n=512", "n=1,961", "evaluation running: 120 of 3,922 answers"):
        assert shown in result.stdout


def test_quality_before_the_first_sample_prints_the_verdicts(run: Run, monkeypatch) -> None:
    service = Service(monkeypatch, FRESH)
    result = run("quality")
    assert result.exit_code == 0
    assert service.requests[0][2] == {"params": {}}
    assert "minilm (embeddings)" in result.stdout
    assert "n=" not in result.stdout


def test_evidence_that_is_not_kept_is_told(run: Run, monkeypatch) -> None:
    Service(monkeypatch, replace(SENTIMENT, not_kept="in memory only: [it] is damaged"))
    for arguments in (("quality",), ("quality", "--history")):
        assert "not kept: in memory only: [it] is damaged" in run(*arguments).stdout


def test_history_prints_the_changes(run: Run, monkeypatch) -> None:
    service = Service(monkeypatch, SENTIMENT)
    result = run("quality", "--history", "--since", "2026-11-28")
    assert result.exit_code == 0
    assert service.requests[0][2] == {"params": {"since": "2026-11-28"}}
    assert "sentiment: no verdict has changed since then" in result.stdout
    service.history = with_history(CHANGE)["history"]
    result = run("quality", "--history", "--model", "sentiment")
    assert service.requests[1][2] == {"params": {"model": "sentiment", "since": "0"}}
    assert "01234567 beside fedcba98" in result.stdout


def test_since_without_history_is_refused(run: Run) -> None:
    result = run("quality", "--since", "0")
    assert result.exit_code == 1
    assert "--since: belongs to --history" in result.stderr


def test_evaluate_waits_until_all_is_done(run: Run, monkeypatch) -> None:
    service = Service(monkeypatch, at("running"), at("running", 2_000), SENTIMENT)
    result = run("evaluate", "sentiment", "--url", "http://there:1")
    assert result.exit_code == 0
    [start, *polls] = service.requests
    url = "http://there:1/v1/quality/evaluate"
    assert start == ("POST", url, {"json": {"model": "sentiment"}})
    assert [content for _, _, content in polls] == [{"params": {"model": "sentiment"}}] * 3
    assert "-0.0020" in result.stdout
    assert INT8.reason in result.stdout


def test_evaluate_says_which_variants_were_left_out(run: Run, monkeypatch) -> None:
    Service(monkeypatch, at("done", 3_922, "int4 [x] is left out: it was deployed again"))
    result = run("evaluate", "sentiment")
    assert result.exit_code == 0
    assert "int4 [x] is left out: it was deployed again" in result.stdout


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (at("failed", reason="labels [meh] are not the model's"), "labels [meh] are not the model"),
        (at("idle"), "it was broken off; start it again"),
    ],
)
def test_an_evaluation_that_fails_or_is_lost_says_so(
    run: Run, monkeypatch, last: ModelQuality, said: str
) -> None:
    Service(monkeypatch, at("running"), last)
    result = run("evaluate", "sentiment")
    assert result.exit_code == 1
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_a_refusal_is_told_in_the_service_s_words(run: Run, monkeypatch) -> None:
    service = Service(monkeypatch, SENTIMENT)
    error = {"message": "model 'minilm' has no labelled data", "type": "x", "code": "x"}
    service.refusal = httpx.Response(422, json={"error": error})
    result = run("evaluate", "minilm")
    assert result.exit_code == 1
    assert "/v1/quality/evaluate: model 'minilm' has no labelled data" in result.stderr
    assert "no answer" not in result.stderr


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"data": [{"id": "gpt"}]}),
        httpx.Response(404, json={"detail": "Not Found"}),
    ],
)
def test_another_server_is_told_apart(run: Run, monkeypatch, response: httpx.Response) -> None:
    Service(monkeypatch, SENTIMENT).refusal = response
    result = run("quality")
    assert result.exit_code == 1
    assert "/v1/quality: no answer from a running service" in result.stderr
