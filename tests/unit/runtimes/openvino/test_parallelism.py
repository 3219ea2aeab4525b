"""oneTBB's own figure says how many threads it lets run."""

from __future__ import annotations

import pytest

from serving.runtimes.openvino.parallelism import Parallelism

ACTIVE = "_ZN3tbb6detail2r127global_control_active_valueEi"


def active(parallelism: Parallelism) -> int:
    assert parallelism._library is not None, "this build of OpenVINO has no oneTBB"
    threads: int = parallelism._library[ACTIVE](0)
    return threads


@pytest.mark.parametrize("most", [2, 8])
def test_the_limit_is_the_one_asked_for_and_none_for_as_many_as_there_are(most: int) -> None:
    parallelism = Parallelism(most)
    unlimited = active(parallelism)
    for threads in (1, 1, most, 1, most - 1, most):
        parallelism.limit(threads)
        assert active(parallelism) == (unlimited if threads == most else threads)
