"""The highest rate at which 95 % of the requests to a variant are answered within a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.plan import LoadPlan, Operation
from loadtests.runner import run_plan

ATTAINMENT = 0.95


@dataclass(frozen=True, slots=True)
class VariantLoad:
    """What is asked, of whom.

    Attributes:
        model: Of the demo.
        variant: Of it.
        operation: Route.
        inputs: As in a load plan.
        limit_ms: Within which an answer is good.
        first_rate: Requests/s at which the search begins.
        is_selecting: Whether the gateway is asked, or the variant's own route.
        slots: Sequences that the variant continues at once, beside which others wait.
        body: Further fields.
        turn_s: Seconds at each rate, twice; in both together a share of 95 % is only sure of 73
            requests that all are good.
    """

    model: str
    variant: str
    operation: Operation
    inputs: Mapping[str, object]
    limit_ms: int
    first_rate: float
    is_selecting: bool = False
    slots: int = 0
    body: Mapping[str, object] = field(default_factory=dict)
    turn_s: float = 6

    def plan(self, url: str, rate: float) -> LoadPlan:
        """An open loop at a rate.

        Args:
            url: Of the service.
            rate: Requests/s.
        """
        own_route = "" if self.is_selecting else f"/{self.model}/{self.variant}"
        return LoadPlan.model_validate(
            {
                "target": {"url": url + own_route},
                "scenarios": [
                    {
                        "model": self.model,
                        "operation": self.operation,
                        "variants": [self.variant],
                        "inputs": self.inputs,
                        "arrivals": {"kind": "poisson", "rate": rate},
                        "body": self.body,
                        "slo": {"latency_ms": self.limit_ms},
                    }
                ],
                "rounds": 1,
                "duration_s": self.turn_s,
                "warmup_s": 1,
                "attainment": ATTAINMENT,
                # Of a latency that is a tenth of the limit; what lags counts in it all the same.
                "max_lag_share": 1,
                "stop": {"error_share": None, "saturation_s": None},
            }
        )


def find_peak(load: VariantLoad, url: str) -> float:
    """Search the highest rate, in requests/s, at which enough requests are good.

    Raises:
        AssertionError: There is none.
    """
    plan = load.plan(url, load.first_rate)
    results = asyncio.run(run_plan(plan, Path(), lambda *_: None, find_peaks=True))
    found = results.scenarios[0].peaks[0]
    assert found.rate is not None, f"no peak: {found.note}"
    return found.rate
