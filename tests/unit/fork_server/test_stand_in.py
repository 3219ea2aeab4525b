"""Which starts a fork server takes over; the others are Python's."""

import json

import pytest

from serving.fork_server.stand_in import wanted_server

SET_UP, WORKER = "/ray/workers/setup_worker.py", "/ray/workers/default_worker.py"


def context(**settings: object) -> str:
    return f"--serialized-runtime-env-context={json.dumps(settings)}"


@pytest.mark.parametrize(
    ("arguments", "server"),
    [
        ([WORKER, "--node-id=1"], "serving"),
        ([SET_UP, WORKER, "--language=PYTHON"], "serving"),
        ([SET_UP, WORKER, context(py_executable="/usr/bin/python3")], "serving"),
        ([SET_UP, WORKER, context(env_vars={"QUANTSERVE_PRELOADED": "torch"})], "torch"),
        # Something else than the start of a worker, or one that must be prepared otherwise.
        ([], None),
        (["-c", "print(1)"], None),
        (["dashboard/agent.py"], None),
        ([SET_UP, "-Dray.address=1", "io.ray.DefaultWorker"], None),
        ([SET_UP, WORKER, context(env_vars={"OMP_NUM_THREADS": "1"})], None),
        ([SET_UP, WORKER, context(command_prefix=["conda run"])], None),
        ([SET_UP, WORKER, context(override_worker_entrypoint="/other.py")], None),
    ],
)
def test_the_server_that_is_asked(arguments: list[str], server: str | None) -> None:
    assert wanted_server(arguments) == server
