"""Ray Serve's view of an application becomes a state in quantserve's words."""

from enum import Enum
from typing import Any

import pytest

from serving.gateway.variant_status import (
    NOT_DEPLOYED,
    ApplicationState,
    application_name,
    application_state,
    application_states,
    error_line,
    starting,
)
from serving.seams.catalog import Phase


class Ray(Enum):
    """Stands for Ray Serve's enums, whose values are these strings."""

    RUNNING = "RUNNING"
    STARTING = "STARTING"
    STOPPING = "STOPPING"
    DEPLOYING = "DEPLOYING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    UNHEALTHY = "UNHEALTHY"


TRACEBACK = """The deployment failed to start 3 times in a row. Error:
ray::ServeReplica:minilm--int4.initialize_and_get_metadata() (pid=1, ip=127.0.0.1)
  File "x.py", line 3, in load
    raise SourceError("no weights")
serving.errors.SourceError: no weights for head.weight: they are missing
"""


def details(
    status: Any, replicas: dict[Any, int] | None = None, message: str = "", deployment: str = ""
) -> dict[str, Any]:
    states = [state for state, count in (replicas or {}).items() for _ in range(count)]
    one = {"replicas": [{"state": state} for state in states], "message": deployment}
    return {
        "status": status,
        "message": message,
        "last_deployed_time_s": 7.0,
        "deployments": {"minilm--int4": one},
    }


@pytest.mark.parametrize("status", [Ray.RUNNING, Ray.DEPLOYING, Ray.UNHEALTHY, "DEPLOY_FAILED"])
def test_one_running_replica_is_enough(status: Any) -> None:
    replicas = {Ray.RUNNING: 2, Ray.STARTING: 1, "RUNNING": 1}
    assert application_state(details(status, replicas, TRACEBACK)) == ApplicationState(
        3, False, "", 7.0, status == Ray.DEPLOYING
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (details(Ray.DEPLOYING, {Ray.STARTING: 1}), ApplicationState(0, False, "loading")),
        (details("DEPLOYING", {Ray.STOPPING: 1}), ApplicationState(0, False, "loading")),
        (details(Ray.DEPLOYING, {Ray.RUNNING: 0}), ApplicationState(0, False, "loading")),
        (
            details(Ray.DEPLOYING, message=TRACEBACK),
            ApplicationState(
                0,
                False,
                "starting again after: SourceError: no weights for head.weight: they are missing",
            ),
        ),
        (
            details(Ray.UNHEALTHY, deployment="builtins.OSError: disk"),
            ApplicationState(0, False, "starting again after: OSError: disk"),
        ),
        (
            details(Ray.DEPLOY_FAILED, deployment=TRACEBACK, message="gave up"),
            ApplicationState(
                0,
                True,
                "failed to start: SourceError: no weights for head.weight: they are missing",
            ),
        ),
        (
            details("DEPLOY_FAILED", message="no reason given"),
            ApplicationState(0, True, "failed to start: see the log"),
        ),
    ],
)
def test_without_a_running_replica_the_reason_is_told(found: Any, expected: Any) -> None:
    assert application_state(found, "loading") == expected


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        ("waiting", "waiting for its turn to load"),
        ("preparing", "preparing its artifact"),
        ("loading", "loading"),
    ],
)
def test_a_replica_that_starts_says_itself_how_far_it_is(phase: Phase, reason: str) -> None:
    found = details(Ray.DEPLOYING, {Ray.STARTING: 1})
    expected = ApplicationState(0, False, reason, phase=phase)
    assert application_state(found, phase) == expected
    names = [("minilm", "int4")]
    states = application_states({"minilm--int4": found}, names, {"minilm--int4": phase})
    assert states == {("minilm", "int4"): expected}


def test_who_has_said_nothing_yet_waits() -> None:
    found = details(Ray.DEPLOYING, {Ray.STARTING: 1})
    states = application_states({"minilm--int4": found}, [("minilm", "int4")], {})
    assert states["minilm", "int4"].phase == "waiting"


def test_only_what_is_deployed_and_does_not_run_is_asked_how_far_it_is() -> None:
    applications = {
        "minilm--fp32": details(Ray.RUNNING, {Ray.RUNNING: 1}),
        "minilm--int4": details(Ray.DEPLOYING, {Ray.STARTING: 1}),
        "minilm--bf16": details(Ray.DEPLOYING),
    }
    names = ["minilm--fp32", "minilm--int8", "minilm--bf16", "minilm--int4"]
    assert starting(applications, names) == ["minilm--bf16", "minilm--int4"]


def test_states_of_all_names_are_given_in_their_order() -> None:
    applications = {
        "minilm--int4": details(Ray.RUNNING, {Ray.RUNNING: 1}),
        "gateway": details(Ray.RUNNING, {Ray.RUNNING: 1}),
    }
    states = application_states(applications, [("minilm", "fp32"), ("minilm", "int4")], {})
    assert list(states.items()) == [
        (("minilm", "fp32"), NOT_DEPLOYED),
        (("minilm", "int4"), ApplicationState(1, False, "", 7.0)),
    ]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("", ""),
        ("Deployment is healthy.", ""),
        ("Note: nothing failed", ""),
        ("ValueError: bad", "ValueError: bad"),
        ("  torch.cuda.OutOfMemoryError: 2 GiB", "OutOfMemoryError: 2 GiB"),
        ("KeyError: 'a'\n\nDuring handling:\nOSError: disk\nat the end", "OSError: disk"),
        ("my.CustomException: x", "CustomException: x"),
        (TRACEBACK, "SourceError: no weights for head.weight: they are missing"),
    ],
)
def test_the_last_line_that_names_an_exception_is_found(message: str, expected: str) -> None:
    assert error_line(message) == expected


def test_an_application_is_named_after_model_and_variant() -> None:
    assert application_name("minilm", "int8-dynamic") == "minilm--int8-dynamic"
