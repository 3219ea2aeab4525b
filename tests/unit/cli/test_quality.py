"""``quantserve quality`` and ``quantserve evaluate`` over a service that answers what they show."""

import io
from dataclasses import asdict, replace
from math import inf
from typing import Any

import httpx
import orjson
import pytest
from rich.console import Console
from rich.table import Table

from serving.cli import evaluate
from serving.cli.quality_tables import drafts_table, labels_table, measures_table, verdict_table
from serving.cli.verdict_history import history_table
from serving.seams import DraftDescription
from serving.seams.quality import (
    Estimate,
    EvaluationProgress,
    LabelReport,
    ModelQuality,
    OriginReport,
    ProbeProgress,
    VariantQuality,
    VerdictChange,
)
from tests.unit.cli.conftest import Run

DONE = ProbeProgress("done", 72, 72, "")
REFERENCE = VariantQuality(
    variant="fp32",
    is_reference=True,
    verdict="indistinguishable",
    reason="the others are judged against it",
    in_auto=True,
    quality_low=1.0,
    origins=(),
    labels=LabelReport("reviews_test", Estimate(0.7476, 0.7279, 0.7663, 1_961), None, None, None),
    worst=(),
    probe_p95_s=0.01,
    probes=DONE,
)
INT8 = VariantQuality(
    variant="int8-dynamic",
    is_reference=False,
    verdict="not enough samples",
    reason="live: 12 samples show differences from 0.5 only; [probes] agree",
    in_auto=True,
    quality_low=0.9642,
    origins=(
        OriginReport(
            origin="live",
            count=5_000,
            measures={
                "agreement": Estimate(0.9812, 0.9642, 0.9901, 512),
                "probability_change": Estimate(0.01234, 0.01134, 0.01334, 512),
                "divergence": Estimate(1.23e-4, 1.01e-4, 1.51e-4, 512),
            },
            smallest_difference=0.0123,
        ),
    ),
    labels=LabelReport(
        "reviews_test",
        Estimate(0.7456, 0.7259, 0.7643, 1_961),
        None,
        Estimate(-0.0020, -0.0111, 0.0071, 1_961),
        0.0123,
    ),
    worst=(),
    probe_p95_s=None,
    probes=DONE,
)
SENTIMENT = ModelQuality(
    model="sentiment",
    task="classification",
    reference="fp32",
    floor=0.9,
    tolerance=0.005,
    evaluation=EvaluationProgress("done", 3_922, 3_922, ""),
    variants=(REFERENCE, INT8),
)
FRESH = replace(
    SENTIMENT,
    model="minilm",
    task="embeddings",
    evaluation=None,
    variants=(replace(REFERENCE, labels=None), replace(INT8, origins=(), labels=None)),
)


def entry(quality: ModelQuality) -> dict[str, Any]:
    """As the route writes it."""
    read: dict[str, Any] = orjson.loads(orjson.dumps(asdict(quality)))
    return read


def screen_of(table: Table | None, width: int = 80) -> str:
    assert table is not None
    screen = Console(width=width, record=True, file=io.StringIO())
    screen.print(table)
    return screen.export_text()


def test_a_verdict_comes_with_its_reason() -> None:
    text = screen_of(verdict_table(entry(SENTIMENT)), 200)
    rows = [line.split() for line in text.splitlines()]
    [reference] = [row for row in rows if row[:1] == ["fp32"]]
    [int8] = [row for row in rows if row[:1] == ["int8-dynamic"]]
    assert reference == ["fp32", "indistinguishable", "yes", "the", "reference"]
    assert int8[:5] == ["int8-dynamic", "not", "enough", "samples", "yes"]
    assert INT8.reason in text
    assert "reference fp32, floor 0.900, tolerance 0.005" in text


def test_every_measure_comes_with_its_interval_and_count() -> None:
    text = screen_of(measures_table(entry(SENTIMENT)))
    assert "0.981 [0.964, 0.990] n=512" in text
    assert "0.0123 [0.0113, 0.0133] n=512" in text
    assert "1.2e-04 [1.0e-04, 1.5e-04] n=512" in text
    assert "int8-dynamic live smallest difference 0.012" in " ".join(text.split())


def test_a_measured_accuracy_stands_beside_the_reference_s() -> None:
    text = screen_of(labels_table(entry(SENTIMENT)))
    assert "sentiment on reviews_test, beside fp32" in text
    for shown in (
        "0.7476 n=1,961",
        "[0.7279, 0.7663]",
        "0.7456 n=1,961 -0.0020 0.0123",
        "[-0.0111, +0.0071]",
    ):
        assert shown in " ".join(text.split())


def test_perplexity_is_told_as_a_ratio() -> None:
    perplexity = Estimate(23.4567, 21.0, 26.0, 5_120)
    labels = LabelReport(
        "reviews", None, perplexity, Estimate(0.0123, 0.0101, 0.0145, 5_120), 0.003
    )
    alone = replace(labels, difference=None, smallest_difference=None)
    variants = (replace(REFERENCE, labels=alone), replace(INT8, labels=labels))
    text = screen_of(labels_table(entry(replace(SENTIMENT, variants=variants))))
    for shown in ("perplexity", "ratio minus 1", "23.457 n=5,120", "+0.0123", "0.0030"):
        assert shown in text


def test_an_interval_without_an_end_says_so() -> None:
    single = OriginReport("live", 1, {"cosine": Estimate(0.9, -inf, inf, 1)}, 1.0)
    quality = replace(SENTIMENT, variants=(REFERENCE, replace(INT8, origins=(single,))))
    assert "0.90000 [–∞, ∞] n=1" in screen_of(measures_table(entry(quality)))


def test_nothing_measured_is_no_table() -> None:
    assert measures_table(entry(FRESH)) is None
    assert labels_table(entry(FRESH)) is None


@pytest.mark.parametrize("make", [verdict_table, measures_table, labels_table])
def test_a_table_fits_80_columns(make) -> None:
    report = INT8.origins[0]
    full = replace(report, measures={**report.measures, "cosine": Estimate(0.99987, 0.9998, 1, 5)})
    crowded = replace(SENTIMENT, variants=(REFERENCE, replace(INT8, origins=(full,))))
    text = screen_of(make(entry(crowded)))
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "int8-dynamic" in text
    # A figure stands in one line with its interval and count.
    assert all(line.count("[") == line.count("]") for line in text.splitlines())


CHANGE = VerdictChange(
    at=1_795_896_000.0,  # 2026-11-28 20:00 UTC
    variant="int8-dynamic",
    artifact="0123456789abcdef",
    reference_artifact="fedcba9876543210",
    verdict="degraded",
    reason="[probes] agree, labels do not",
    in_auto=True,
    origins=INT8.origins,
    labels=INT8.labels,
)


def with_history(*changes: VerdictChange) -> dict[str, Any]:
    history = orjson.loads(orjson.dumps([asdict(change) for change in changes]))
    return {**entry(SENTIMENT), "history": history}


def test_a_change_of_a_verdict_comes_with_its_grounds() -> None:
    text = screen_of(history_table(with_history(CHANGE)), 200)
    for shown in (
        "2026-11-28 20:00:00",
        "degraded",
        "live 0.981 [0.964, 0.990] n=512",
        "reviews_test -0.0020 [-0.0111, +0.0071] n=1,961",
        "01234567 beside fedcba98",
        CHANGE.reason,
    ):
        assert shown in text


def test_a_history_fits_80_columns() -> None:
    text = screen_of(history_table(with_history(CHANGE, replace(CHANGE, labels=None, origins=()))))
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert text.count("int8-dynamic") == 2


def test_no_change_is_no_table() -> None:
    assert history_table(with_history()) is None


@pytest.mark.parametrize(
    ("probes", "said"),
    [
        (ProbeProgress("probing", 60, 72, "probing 60 of 72"), "; probing 60 of 72"),
        (ProbeProgress("done", 72, 72, ""), ""),
    ],
)
def test_whoever_has_not_answered_all_probes_says_how_far_it_is(
    probes: ProbeProgress, said: str
) -> None:
    variants = tuple(replace(one, probes=probes) for one in (REFERENCE, INT8))
    text = screen_of(verdict_table(entry(replace(SENTIMENT, variants=variants))), 200)
    lines = [line.rstrip() for line in text.splitlines()]
    assert any(line.endswith(f"the reference{said}") for line in lines)
    assert any(line.endswith(f"{INT8.reason}{said}") for line in lines)


def test_progress_that_is_the_reason_is_said_once() -> None:
    probes = ProbeProgress("probing", 31, 72, "probing 31 of 72")
    int8 = replace(INT8, probes=probes, reason=probes.reason)
    text = screen_of(verdict_table(entry(replace(SENTIMENT, variants=(REFERENCE, int8)))), 200)
    assert text.count("probing 31 of 72") == 1


def model(variant: str, draft: DraftDescription | None = None) -> dict[str, Any]:
    """What ``GET /v1/models`` says of a variant, as far as it is read."""
    said = {"model": "sentiment", "variant": variant, "draft": draft and asdict(draft)}
    return {"id": f"sentiment:{variant}", "quantserve": said}


def drafted(accepted: int, rejected: int, by: str = "int8-dynamic") -> dict[str, Any]:
    judged = accepted + rejected
    acceptance = accepted / judged if judged else None
    return model("fast", DraftDescription(by, "auto", accepted, rejected, 9, acceptance))


def test_what_was_accepted_stands_beside_the_draft_s_agreement() -> None:
    models = [model("fp32"), drafted(4_000, 1_000), {**drafted(1, 1)}]
    models[2]["quantserve"] = {**models[2]["quantserve"], "model": "other"}
    screen = screen_of(drafts_table(entry(SENTIMENT), models))
    assert "0.800 n=5,000" in screen
    assert "live 0.981 [0.964, 0.990] n=512" in screen
    assert "n=2" not in screen
    assert drafts_table(entry(SENTIMENT), models[:1]) is None


def test_a_draft_that_was_not_read_yet_or_is_the_reference() -> None:
    screen = screen_of(drafts_table(entry(SENTIMENT), [drafted(0, 0, by="fp32")]))
    assert "–" in screen
    assert "the reference" in screen


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
