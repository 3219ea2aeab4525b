"""What is read from a real page of metrics, and from processes."""

from __future__ import annotations

import psutil
import pytest

from loadtests.processes import CpuReading, cpu_between, read_cpu
from loadtests.server_metrics import ServerReading, read_page, server_round

NAMES = "quantserve_batch_size", "quantserve_forward_duration_seconds"


def page(count: float, total: float, replica: str = "r1", variant: str = "int4") -> str:
    labels = f'{{model="m",variant="{variant}",replica="{replica}"}}'
    lines = [f"quantserve_kv_cache_bytes{labels} 10"]
    for name in NAMES:
        lines += [f"{name}_count{labels} {count}", f"{name}_sum{labels} {total}"]
    return "\n".join(lines) + "\n"


def reading(*pages: str, cpu: CpuReading | None = None) -> ServerReading:
    return ServerReading(read_page("".join(pages), "m", "int4"), cpu)


def test_means_are_of_the_turn_and_of_all_replicas() -> None:
    before = reading(page(10, 5), page(1, 100, variant="fp32"))
    after = reading(page(14, 9), page(6, 6, replica="r2"), page(9, 900, variant="fp32"))
    found = server_round(before, after, 0, {"disk_bytes": 7, "device": None, "width": 3})
    assert found.means == {"batch_size": pytest.approx(1), "forward": pytest.approx(1)}
    assert found.last == {"kv_cache_bytes": 20, "disk_bytes": 7}


@pytest.mark.parametrize("after", [page(10, 5), page(2, 1), "", "<html>", "a b c d"])
def test_what_did_not_grow_has_no_mean(after) -> None:
    assert server_round(reading(page(10, 5)), reading(after), 5, {}).means == {}


def test_cpu_time_is_per_answer_and_of_processes_that_lasted() -> None:
    before = CpuReading({1: 10.0}, {1: 10.0, 2: 5.0, 3: 1.0})
    after = CpuReading({1: 12.0, 4: 9.0}, {1: 12.0, 2: 6.0, 4: 9.0})
    assert cpu_between(before, after) == (2.0, 3.0)
    assert cpu_between(None, after) is None
    means = server_round(reading(cpu=before), reading(cpu=after), 4, {}).means
    assert means == {"replica_cpu": 0.5, "service_cpu": 0.75}


def test_replicas_are_found_by_their_title(monkeypatch) -> None:
    """A Ray worker's name and command line are its actor's; this process stands in for one."""
    monkeypatch.setattr(psutil.Process, "name", lambda self: "ray::ServeReplica:m--int4:M")
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: ["ray::ServeReplica:m--int4:M"])
    monkeypatch.setattr(psutil, "process_iter", lambda: [psutil.Process()])
    found = read_cpu("http://127.0.0.1:8000", "m", "int4")
    assert found is not None
    assert found.replicas == found.service
    assert all(seconds > 0 for seconds in found.replicas.values())
    assert read_cpu("http://127.0.0.1:8000", "m", "int") is None
    assert read_cpu("http://elsewhere:8000", "m", "int4") is None
