"""What is known of quality, and the start of evaluations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from serving.config import ServerConfig
from serving.errors import InvalidField, NotReady
from serving.metrics import EdgeMetrics
from serving.quality.probes import TEXTS, read_pair_probes, read_text_probes
from serving.routes.api import build_gateway_api
from serving.routes.services import Services
from serving.seams import (
    CourseStep,
    Estimate,
    EvaluationProgress,
    Input,
    ModelQuality,
    OriginReport,
    VariantQuality,
    VerdictChange,
)
from tests.unit.fakes.backends import FakeBackends
from tests.unit.routes.sites import MODELS, Site, open_replica
from tests.unit.routes.sites import _client as client_of

REPORT = OriginReport("probes", 72, {"agreement": Estimate(0.9, 0.8, 0.95, 72)}, 0.1)
INT4 = VariantQuality(
    "int4", False, "degraded", "10 % differ", True, 0.8, (REPORT,), None, (), 0.01
)


CHANGE = VerdictChange(
    1_000.5, "int4", "int4-1", "fp32-1", "degraded", "10 % differ", True, (REPORT,), None
)


STEP = CourseStep("int4", "live", "int4-1", "fp32-1", 1_000.5, Estimate(0.9, 0.8, 0.95, 72))


class FakeBoard:
    """Reports two models; ``failure`` is raised instead."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.evaluated: list[str] = []
        self.kept: tuple[Input, ...] = ()
        self.asked_since: list[float] = []
        self.asked_course: list[tuple[str, float, float]] = []

    async def report(self) -> tuple[ModelQuality, ...]:
        if self.failure is not None:
            raise self.failure
        return tuple(
            ModelQuality(model.name, model.task, "fp32", 0.7, 0.05, None, (INT4,))
            for model in MODELS
        )

    async def history(self, since: float) -> Mapping[str, tuple[VerdictChange, ...]]:
        if self.failure is not None:
            raise self.failure
        self.asked_since.append(since)
        return {"minilm": (CHANGE,)}

    async def course(self, model: str, since: float, step_s: float) -> tuple[CourseStep, ...]:
        if self.failure is not None:
            raise self.failure
        self.asked_course.append((model, since, step_s))
        return (STEP,)

    async def inputs(self, model: str) -> tuple[Input, ...]:
        if self.failure is not None:
            raise self.failure
        return self.kept

    async def evaluate(self, model: str) -> EvaluationProgress:
        if self.failure is not None:
            raise self.failure
        self.evaluated.append(model)
        return EvaluationProgress("running", 3, 100, "")


@pytest.fixture
def board() -> FakeBoard:
    return FakeBoard()


@pytest.fixture
def site(board: FakeBoard) -> Site:
    """The gateway with a board."""
    backends, metrics = FakeBackends(MODELS), EdgeMetrics("gateway-1")

    async def metrics_page() -> str:
        return ""

    catalog = {model.name: model for model in MODELS}
    services = Services(catalog, backends, ServerConfig(), board=board)
    edge = build_gateway_api(services, metrics, metrics_page)
    return Site(edge, client_of(edge, ""), backends, metrics)


async def test_everything_that_is_known_is_told(site: Site) -> None:
    answer = (await site.client.get("/v1/quality")).json()
    assert [entry["model"] for entry in answer["data"]] == ["minilm", "sentiment"]
    (variant,) = answer["data"][0]["variants"]
    assert variant["verdict"] == "degraded"
    assert variant["origins"] == [
        {
            "origin": "probes",
            "count": 72,
            "measures": {"agreement": {"value": 0.9, "low": 0.8, "high": 0.95, "count": 72}},
            "smallest_difference": 0.1,
        }
    ]


async def test_the_history_is_told_if_asked_for(site: Site, board: FakeBoard) -> None:
    assert "history" not in (await site.client.get("/v1/quality")).json()["data"][0]
    minilm, sentiment = (await site.client.get("/v1/quality?since=0")).json()["data"]
    (change,) = minilm["history"]
    assert (change["at"], change["artifact"], change["reference_artifact"]) == (
        1_000.5,
        "int4-1",
        "fp32-1",
    )
    assert change["verdict"] == "degraded"
    assert change["origins"][0]["measures"]["agreement"]["low"] == 0.8
    assert sentiment["history"] == []
    answer = await site.client.get("/v1/quality?since=0&model=sentiment")
    assert [entry["model"] for entry in answer.json()["data"]] == ["sentiment"]


async def test_the_course_is_told_in_equal_steps(site: Site, board: FakeBoard) -> None:
    since = time.time() - 48 * 60
    answer = await site.client.get(f"/v1/quality/course?model=minilm&since={since}")
    assert answer.json()["data"] == [
        {
            "variant": "int4",
            "origin": "live",
            "artifact": "int4-1",
            "reference_artifact": "fp32-1",
            "at": 1_000.5,
            "agreement": {"value": 0.9, "low": 0.8, "high": 0.95, "count": 72},
        }
    ]
    ((model, begin, step_s),) = board.asked_course
    assert (model, begin) == ("minilm", since)
    assert step_s == answer.json()["step_s"] == pytest.approx(60, rel=0.1)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("model=minilm", 422),
        ("since=0", 422),
        ("model=other&since=0", 404),
        ("model=minilm&since=soon", 422),
        ("model=minilm&since=0&step=1", 422),
    ],
)
async def test_a_course_of_nothing_is_refused(site: Site, query: str, status: int) -> None:
    answer = await site.client.get(f"/v1/quality/course?{query}")
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


async def test_a_span_that_is_hardly_one_has_steps_of_a_second(
    site: Site, board: FakeBoard
) -> None:
    await site.client.get(f"/v1/quality/course?model=minilm&since={time.time() + 30}")
    assert board.asked_course[0][2] == 1.0


@pytest.mark.parametrize(
    ("since", "seconds"),
    [
        ("1795896000.5", 1_795_896_000.5),
        ("2026-11-28", 1_795_824_000.0),
        ("2026-11-28T20:00:00", 1_795_896_000.0),
        ("2026-11-28T20:00Z", 1_795_896_000.0),
        ("2026-11-28T21:00:00+01:00", 1_795_896_000.0),
        ("-1", -1.0),
    ],
)
async def test_a_time_has_two_forms(
    site: Site, board: FakeBoard, since: str, seconds: float
) -> None:
    answer = await site.client.get("/v1/quality", params={"since": since})
    assert answer.status_code == 200
    assert board.asked_since == [seconds]


@pytest.mark.parametrize(
    "since", ["", "yesterday", "nan", "inf", "2026-13-01", "1e999", "1e20", "9999-01-01"]
)
async def test_what_is_no_time_is_a_422(site: Site, board: FakeBoard, since: str) -> None:
    answer = await site.client.get("/v1/quality", params={"since": since})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["param"] == "since"
    assert "2026-11-28T20:00:00Z" in error["message"]
    assert board.asked_since == []


async def test_one_model_can_be_asked_for(site: Site) -> None:
    answer = (await site.client.get("/v1/quality?model=sentiment")).json()
    assert [entry["model"] for entry in answer["data"]] == ["sentiment"]


async def test_an_unknown_model_is_a_404_that_lists_the_known(site: Site) -> None:
    for answer in (
        await site.client.get("/v1/quality?model=other"),
        await site.client.get("/v1/quality/inputs?model=other"),
        await site.client.post("/v1/quality/evaluate", json={"model": "other"}),
        await site.client.post("/v1/compare", json={"model": "other", "input": "a"}),
    ):
        assert answer.status_code == 404
        assert "minilm, sentiment" in answer.json()["error"]["message"]


async def test_kept_inputs_are_a_file_of_probes(
    site: Site, board: FakeBoard, tmp_path: Path
) -> None:
    file = tmp_path / "live.jsonl"
    texts = tuple(f"text {number}\nof two lines \u2028 and more" for number in range(11))
    pairs = tuple((f"query {number}", "a document") for number in range(11))
    for kept, read in (
        (texts, partial(read_text_probes, shipped=TEXTS)),
        (pairs, read_pair_probes),
    ):
        board.kept = kept
        answer = await site.client.get("/v1/quality/inputs?model=minilm")
        assert answer.headers["content-type"] == "application/jsonl"
        file.write_bytes(answer.content)
        assert read(file) == kept


async def test_a_model_that_keeps_no_input_says_so(site: Site, board: FakeBoard) -> None:
    board.failure = InvalidField("no input of model 'minilm' is kept", param="model")
    answer = await site.client.get("/v1/quality/inputs?model=minilm")
    assert answer.status_code == 422
    assert "is kept" in answer.json()["error"]["message"]


async def test_an_evaluation_is_started(site: Site, board: FakeBoard) -> None:
    answer = await site.client.post("/v1/quality/evaluate", json={"model": "sentiment"})
    assert answer.status_code == 202
    assert answer.json() == {
        "model": "sentiment",
        "state": "running",
        "done": 3,
        "total": 100,
        "reason": "",
    }
    assert board.evaluated == ["sentiment"]


@pytest.mark.parametrize(
    ("failure", "status"), [(NotReady("away"), 503), (InvalidField("no data"), 422)]
)
async def test_failures_of_the_board_have_their_status(
    site: Site, board: FakeBoard, failure: Exception, status: int
) -> None:
    board.failure = failure
    answer = await site.client.post("/v1/quality/evaluate", json={"model": "sentiment"})
    assert answer.status_code == status


async def test_unknown_fields_are_refused(site: Site) -> None:
    body = {"model": "sentiment", "variant": "int4"}
    assert (await site.client.post("/v1/quality/evaluate", json=body)).status_code == 422


async def test_a_replica_has_no_such_route() -> None:
    assert (await open_replica().client.get("/v1/quality")).status_code == 404


@pytest.mark.parametrize("query", ["?sinse=0", "?model=minilm&variant=int4", "?x"])
async def test_an_unknown_query_parameter_is_refused(
    site: Site, board: FakeBoard, query: str
) -> None:
    answer = await site.client.get(f"/v1/quality{query}")
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert "unknown query parameter" in error["message"]
    assert "known: model, since" in error["message"]
    assert error["param"] in ("sinse", "variant", "x")
    assert (await site.client.get("/v1/quality/inputs?model=minilm&since=0")).status_code == 422
