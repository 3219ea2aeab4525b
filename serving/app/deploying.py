"""Deploys the applications of a service on a running Ray, and ends them again.

Import only after ``prepare_ray_environment`` or ``join_ray_environment``.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve import RunTarget
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from serving.errors import StartError
from serving.gateway.serve_details import serve_applications

IDLE_POLL_S = 0.1
IDLE_ANSWER_S = 2.0

GATEWAY_START_S = 10.0
GATEWAY_POLL_S = 0.2


def deploy(applications: Sequence[RunTarget], show_stage: Callable[[str], None]) -> None:
    """Deploy the gateway, then everything else, and return; the gateway tells how far it is.

    Args:
        applications: The gateway is the first.
        show_stage: Told what happens before the gateway can tell.

    Raises:
        StartError: The gateway cannot run.
    """
    gateway, *others = applications
    show_stage("starting the gateway")
    _run([gateway])
    _wait_until_running(gateway.name)
    _run(others)


def shut_down(longest_request_s: float) -> None:
    """Let requests in flight finish, as long as one may take, then end Serve and all it started."""
    # Ray prints the controller's own, intended end as a failed task.
    with contextlib.redirect_stdout(io.StringIO()):
        asyncio.run(_finish_and_shut_down(longest_request_s))


async def _finish_and_shut_down(longest_request_s: float) -> None:
    # One event loop for both: Serve's handles live in the loop that made them.
    try:
        await _wait_until_idle(longest_request_s)
    finally:
        await serve.shutdown_async()


async def _wait_until_idle(longest_request_s: float) -> None:
    """Wait until no process has an unanswered request."""
    deadline = time.monotonic() + longest_request_s
    handles = [
        serve.get_app_handle(name)
        for name, application in serve.status().applications.items()
        if application.status == ApplicationStatus.RUNNING
    ]
    while time.monotonic() < deadline:
        if not any([await _is_busy(handle) for handle in handles]):
            return
        await asyncio.sleep(IDLE_POLL_S)


def _run(targets: list[RunTarget]) -> None:
    serve.run_many(
        targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
    )


def _wait_until_running(application: str) -> None:
    """Give one application the machine to start on; not for ever, as it may take long.

    Raises:
        StartError: It cannot run.
    """
    deadline = time.monotonic() + GATEWAY_START_S
    while time.monotonic() < deadline:
        details = serve_applications().get(application)
        if details is not None and details["status"] == ApplicationStatus.RUNNING:
            return
        if details is not None and details["status"] == ApplicationStatus.DEPLOY_FAILED:
            # The last line of a traceback says what was wrong.
            reason = details["message"].strip().rpartition("\n")[2].strip()
            raise StartError(f"the {application} cannot start: {reason}")
        time.sleep(GATEWAY_POLL_S)


async def _is_busy(handle: DeploymentHandle[Any]) -> bool:
    """Whether any replica of an application has an unanswered request."""
    try:
        numbers = await handle.broadcast("in_flight").results_async(
            timeout_s=IDLE_ANSWER_S, return_exceptions=True
        )
    except TimeoutError:
        return True
    except (RayServeException, RayActorError):
        return False  # nobody is there to answer
    return any(isinstance(number, int) and number > 0 for number in numbers)
