"""A scenario under way: its turns on the same inputs at the same times, and what they gave."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtests.arrivals import (
    Arrivals,
    Closed,
    Constant,
    Gamma,
    Poisson,
    Times,
    measured_s,
    planned_times,
)
from loadtests.bodies import ROUTES, headers, make_body
from loadtests.client import Client
from loadtests.inputs import input_source
from loadtests.peak import find_peak, to_probe
from loadtests.plan import GENERATING, LoadPlan, Scenario
from loadtests.randomness import random_numbers
from loadtests.results import Peak, Probe, ScenarioResult
from loadtests.rounds import Round, reduce_turn
from loadtests.samples import OK
from loadtests.server_metrics import read_server, server_round
from loadtests.summary import summarise
from loadtests.target import Entries, contest
from loadtests.turn import Moment, Turn
from serving.errors import ConfigError

CLOSED_INPUTS = 1_000
"""A closed loop does not know beforehand how many requests it will send; it takes these again."""


@dataclass(frozen=True, slots=True)
class TurnName:
    """Which turn it is.

    Attributes:
        stage: E.g. ``round 1 of 3``.
        duration_s: Measured time planned.
    """

    scenario: str
    variant: str
    stage: str
    duration_s: float


Observe = Callable[[TurnName, Moment], None]


class ScenarioRun:
    """Runs the turns of one scenario.

    Args:
        plan: The plan.
        scenario: One of it.
        entries: What the server says of its variants.
        folder: What file names in the plan are relative to.
        observe: Is told once a second where a turn stands; has to be quick.

    Raises:
        ConfigError: The server lacks something, or a file is missing or wrong.
    """

    def __init__(
        self, plan: LoadPlan, scenario: Scenario, entries: Entries, folder: Path, observe: Observe
    ) -> None:
        self._plan = plan
        self._scenario = scenario
        self._entries = entries
        self._folder = folder
        self._observe = observe
        self._seed = seed_of(plan, scenario)
        self._choose = input_source(scenario.inputs, folder, self._seed)
        self._taken = 0
        self._peaks: list[Peak] = []
        self.contest = contest(scenario, entries)
        self._rounds: dict[str, list[Round]] = {variant: [] for variant in self.contest.variants}
        # What cannot be planned or sent should be known before the first turn.
        self._times(scenario.arrivals, 0)
        make_body(scenario, "", self._choose(0, 1)[0])

    async def run_round(self, number: int) -> None:
        """Each variant's turn, in an order of the round's own.

        Args:
            number: From 0.
        """
        stage = f"round {number + 1} of {self._plan.rounds}"
        taken = 0
        for variant in order_of_turns(self.contest.variants, (*self._seed, number)):
            round_, taken = await self._turn(
                variant, self._scenario.arrivals, number, stage, self._taken
            )
            self._rounds[variant].append(round_)
        self._taken += taken

    @property
    def is_begun(self) -> bool:
        """Whether a variant had a turn."""
        return any(self._rounds.values())

    def result(self) -> ScenarioResult:
        """What was found so far; only of the variants that had a turn."""
        rounds = {variant: found for variant, found in self._rounds.items() if found}
        found = summarise(self._plan, self._scenario, self.contest.reference, rounds)
        return found.model_copy(update={"peaks": tuple(self._peaks)})

    def check_peaks(self) -> Constant | Poisson | Gamma:
        """See that a peak can be searched, and return the arrivals whose rate is to vary.

        Raises:
            ConfigError: The scenario has no SLO, or not one single rate.
        """
        where = f"scenario {self._scenario.name!r}"
        if not self._scenario.slo.limits:
            raise ConfigError(f"{where}: slo: a peak needs a limit, such as latency_ms")
        if not isinstance(self._scenario.arrivals, Constant | Poisson | Gamma):
            raise ConfigError(
                f"{where}: arrivals.kind: a peak needs constant, poisson or gamma arrivals"
            )
        return self._scenario.arrivals

    async def search_peaks(self) -> None:
        """Search the highest rate at which each variant meets the SLO, from the plan's rate on.

        Raises:
            ConfigError: As ``check_peaks``.
        """
        arrivals = self.check_peaks()
        for variant in self.contest.variants:
            self._peaks.append(await self._search_peak(variant, arrivals))

    async def _search_peak(self, variant: str, arrivals: Constant | Poisson | Gamma) -> Peak:
        # Beyond the rounds' numbers, so that times are new ones; the same for every variant.
        number, first = self._plan.rounds, self._taken

        async def probe(rate: float) -> Probe:
            nonlocal number, first
            there = arrivals.model_copy(update={"rate": rate})
            stage = f"peak: {rate:.4g}/s"
            round_, taken = await self._turn(variant, there, number, stage, first)
            number, first = number + 1, first + taken
            return to_probe(self._plan, rate, round_, self._scenario.slo.limits)

        return await find_peak(variant, arrivals.rate, self._plan.attainment, probe)

    async def _turn(
        self, variant: str, arrivals: Arrivals, number: int, stage: str, first: int
    ) -> tuple[Round, int]:
        """One turn with the inputs from the first one on, and how many it took."""
        plan, scenario = self._plan, self._scenario
        times = self._times(arrivals, number)
        count = CLOSED_INPUTS if isinstance(arrivals, Closed) else max(len(times), 1)
        model_name = plan.target.model_template.format(model=scenario.model, variant=variant)
        inputs = self._choose(first, count)
        bodies = [make_body(scenario, model_name, given) for given in inputs]
        name = TurnName(scenario.name, variant, stage, measured_s(arrivals, self._plan.duration_s))
        before = await read_server(plan.target, scenario.model, variant)
        async with Client(
            plan.target.url + ROUTES[scenario.operation],
            headers(),
            plan.timeout_s,
            is_streamed=scenario.is_streamed,
            is_generation=scenario.operation in GENERATING,
        ) as client:
            turn = Turn(client, plan, bodies, name.duration_s, lambda m: self._observe(name, m))
            if isinstance(arrivals, Closed):
                record = await turn.run_closed(arrivals.users)
            else:
                record = await turn.run_open(times)
        after = await read_server(plan.target, scenario.model, variant)
        answered = sum(exchange.outcome == OK for exchange in record.exchanges)
        entry = self._entries.get((scenario.model, variant), {})
        return reduce_turn(number, record, server_round(before, after, answered, entry)), count

    def _times(self, arrivals: Arrivals, number: int) -> Times:
        """Planned times of the turns of one number; a closed loop has none."""
        if isinstance(arrivals, Closed):
            return np.empty(0)
        plan, seed = self._plan, (*self._seed, number)
        return planned_times(arrivals, plan.warmup_s, plan.duration_s, seed, self._folder)


def seed_of(plan: LoadPlan, scenario: Scenario) -> tuple[int, int]:
    """Of everything random in a scenario; with a round's number behind it, of the round."""
    return plan.seed, zlib.crc32(scenario.name.encode())


def order_of_turns(variants: Sequence[str], seed: tuple[int, ...]) -> list[str]:
    """The variants shuffled, so that none always follows the same one, as in a rotation."""
    order = random_numbers("order of turns", seed).permutation(len(variants))
    return [variants[place] for place in order]
