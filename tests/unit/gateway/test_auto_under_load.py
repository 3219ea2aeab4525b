"""Policy and record together, under the load step of the simulation."""

from benchmarks import auto_simulation as simulation

VARIANTS = simulation.VARIANTS
CALM, STEP, END = 20, 50, 70
"""Seconds at which the load rises from 40 to 110 requests/s, falls again, and ends."""


def test_a_load_step_moves_requests_to_a_quicker_variant_and_back() -> None:
    arrivals = simulation.poisson([(20, 40.0), (30, 110.0), (20, 40.0)], seed=0)
    machine = simulation.Machine(VARIANTS)
    requests = machine.run(arrivals, simulation.auto(machine, VARIANTS, simulation.LIMITS))

    def chosen(begin: float, end: float) -> set[str]:
        return {r.variant.name for r in requests if begin <= r.arrived < end}

    # bf16 meets both limits at less cost than fp32, and cannot carry the step.
    assert chosen(0, CALM) == {"bf16"}
    assert chosen(CALM, STEP) == {"bf16", "int8-dynamic"}
    assert chosen(STEP + 10, END) == {"bf16"}
    limit_s = simulation.LIMITS.max_latency_s
    assert limit_s is not None
    late = [r for r in requests if r.latency_s is None or r.latency_s > limit_s]
    assert len(late) < 0.05 * len(requests)
