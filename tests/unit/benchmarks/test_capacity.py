"""What a rate needs, from what was measured."""

from __future__ import annotations

import pytest

from benchmarks.capacity import HEADROOM, Costs, Needs, needs

COSTS = Costs(peak=25, proxy_s=0.0004, gateway_s=0.004)


def test_the_direct_path_needs_no_gateway() -> None:
    # 100 / (0.8 · 25) = 5 replicas; HAProxy takes 0.04 of a core.
    assert needs(100, COSTS, 16, is_selecting=False) == Needs(5, 0, 1, 1)


def test_beyond_one_node_cores_decide() -> None:
    # 500 replicas, and HAProxies 4 cores: 504 / 16 nodes, whose HAProxies are far from full.
    assert needs(10_000, COSTS, 16, is_selecting=False) == Needs(500, 0, 5, 32)


def test_the_selecting_path_pays_for_gateways() -> None:
    # 10,000 · 4 ms = 40 cores at 0.8: 50 gateways; 554 / 16 nodes.
    assert needs(10_000, COSTS, 16, is_selecting=True) == Needs(500, 50, 5, 35)


def test_haproxy_s_one_thread_can_be_what_decides() -> None:
    cheap = Costs(peak=10_000, proxy_s=0.0004, gateway_s=0)
    # Two replicas would do, but 10,000 · 0.4 ms is four cores of HAProxy at 0.8: five nodes.
    assert needs(10_000, cheap, 16, is_selecting=False) == Needs(2, 0, 5, 5)


@pytest.mark.parametrize("rate", [1, 99, 12_345])
def test_no_process_is_planned_beyond_its_headroom(rate: float) -> None:
    found = needs(rate, COSTS, 16, is_selecting=True)
    assert rate / found.replicas <= HEADROOM * COSTS.peak
    assert rate * COSTS.gateway_s / found.gateways <= HEADROOM
    assert rate * COSTS.proxy_s / found.proxies <= HEADROOM
