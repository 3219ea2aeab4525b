"""What a service tells while it starts, and what its start leaves running."""

from __future__ import annotations

import re
import time

import psutil
import pytest

from serving.demo import DEMO_CONFIG
from serving.settings import load_config
from tests.integration.running_service import POLL_S, RunningService

LAST_LOOK_S = 20
"""The service is ready before the command has looked once more and says so."""

NUM_VARIANTS = sum(len(model.variants) for model in load_config(DEMO_CONFIG).models)


def test_it_counts_its_variants_from_the_first_answer_to_the_last(demo: RunningService) -> None:
    assert all(sum(counts.values()) == NUM_VARIANTS for counts in demo.counts)
    assert {"waiting", "loading"} <= {state for counts in demo.counts for state in counts}
    num_ready = [counts.get("ready", 0) for counts in demo.counts]
    assert num_ready == sorted(num_ready)


def test_the_command_says_how_far_each_variant_is_and_when_it_is_over(
    demo: RunningService,
) -> None:
    deadline = time.monotonic() + LAST_LOOK_S
    while "console: " not in (said := demo.log.read_text()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    assert said.index("starting Ray") < said.index("starting the gateway")
    # One that loads between two looks goes from waiting to ready.
    assert re.search(r"\w+:[\w-]+: loading\n", said)
    for line in ("minilm:fp32: ready", "Server: ready after"):
        assert line in said
    assert f"{NUM_VARIANTS} of {NUM_VARIANTS} variants on {demo.url}" in " ".join(said.split())
    assert f"console: {demo.url}/\n" in said
    # Ray's own warnings, which would tear the table apart.
    assert "(raylet)" not in said[: said.index("Server: ready after")]


def test_replicas_share_what_their_runtime_imports(demo: RunningService) -> None:
    (replica,) = demo.replica_processes("minilm", "int8-dynamic")
    (sibling,) = demo.replica_processes("sentiment", "fp32")
    server = replica.parent()
    assert server is not None
    assert server == sibling.parent()
    assert "serving.fork_server.server" in " ".join(server.cmdline())
    memory = replica.memory_full_info()
    # torch and transformers alone are more than 200 MiB of pages that would be private.
    assert memory.rss - memory.uss > 200 * 2**20


@pytest.mark.parametrize("name", ["log_monitor.py", "autoscaler", "dashboard/dashboard.py"])
def test_no_process_of_ray_s_runs_that_nobody_asked_for(demo: RunningService, name: str) -> None:
    for process in demo.descendants():
        try:
            assert name not in " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
