"""What Ray Serve knows of each variant's application, in quantserve's words. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from serving.seams.catalog import Phase

GATEWAY_APPLICATION = "gateway"
"""Name of the Serve application of the gateways."""

_ERROR_LINE = re.compile(r"^(?:[\w]+\.)*(?P<kind>\w+): (?P<what>.+)$")


def application_name(model: str, variant: str) -> str:
    """Name of the Serve application of one variant."""
    return f"{model}--{variant}"


@dataclass(frozen=True, slots=True)
class ApplicationState:
    """State of one variant's application.

    Attributes:
        running: Replicas that run.
        failed: Whether Ray Serve has given up to start one.
        reason: Why none runs, in words; empty if one does.
        deployed_at: When it was deployed last, in Unix seconds.
        is_deploying: Whether a deployment is under way: replicas of the last one may still run.
        phase: How far it is, if none runs.
    """

    running: int
    failed: bool
    reason: str
    deployed_at: float = 0.0
    is_deploying: bool = False
    phase: Phase = "loading"


NOT_DEPLOYED = ApplicationState(0, False, "waiting to be deployed", phase="waiting")

_REASONS: Mapping[Phase, str] = {
    "waiting": "waiting for its turn to load",
    "preparing": "preparing its artifact",
    "loading": "loading",
}


def application_state(details: Mapping[str, Any], phase: Phase = "waiting") -> ApplicationState:
    """Condense what Ray Serve's REST API tells of a one-deployment application.

    Args:
        details: What it tells.
        phase: What its replica said last, if it has one that starts.
    """
    deployments = details["deployments"].values()
    states = [replica["state"] for deployment in deployments for replica in deployment["replicas"]]
    running = sum(getattr(state, "value", state) == "RUNNING" for state in states)
    status = getattr(details["status"], "value", details["status"])
    if running:
        return ApplicationState(
            running, False, "", details["last_deployed_time_s"], status == "DEPLOYING"
        )
    messages = [details["message"], *(deployment["message"] for deployment in deployments)]
    error = next((line for message in messages if (line := error_line(message))), "")
    failed = status == "DEPLOY_FAILED"
    if failed:
        reason = f"failed to start: {error or 'see the log'}"
    elif error:
        reason = f"starting again after: {error}"
    else:
        reason = _REASONS[phase]
    return ApplicationState(0, failed, reason, phase=phase)


def starting(applications: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    """Those of the applications that are deployed and have no replica that runs."""
    return [
        name
        for name in names
        if name in applications and not application_state(applications[name]).running
    ]


def application_states(
    applications: Mapping[str, Mapping[str, Any]],
    names: list[tuple[str, str]],
    phases: Mapping[str, Phase],
) -> dict[tuple[str, str], ApplicationState]:
    """State of every (model, variant) of ``names``.

    Args:
        applications: What Ray Serve tells, by application.
        names: Which are wanted.
        phases: What replicas that start said, by application.
    """
    return {
        name: application_state(applications[application], phases.get(application, "waiting"))
        if (application := application_name(*name)) in applications
        else NOT_DEPLOYED
        for name in names
    }


def error_line(message: str) -> str:
    """The last line of a traceback that names an exception, without its module; or nothing."""
    for line in reversed(message.splitlines()):
        match = _ERROR_LINE.match(line.strip())
        if match and match["kind"].endswith(("Error", "Exception")):
            return f"{match['kind']}: {match['what']}"
    return ""
