"""A report as Markdown and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.report.advice import advice, highest_rates
from loadtests.report.latency_pictures import latency_cdf, percentiles_over_time
from loadtests.report.pareto_picture import pareto_picture
from loadtests.report.picture import Picture
from loadtests.report.rate_picture import rate_against_latency
from loadtests.report.slo import slo_text
from loadtests.report.tables import plain, scenario_tables
from loadtests.results import Results, ScenarioResult

DEFINITIONS = Path(__file__).parent / "definitions.md"


@dataclass(frozen=True, slots=True)
class Document:
    """Markdown, and the pictures that it names as ``NAME.svg``."""

    markdown: str
    pictures: tuple[Picture, ...]


def report(results: Results) -> Document:
    """The report of a run."""
    parts = ["# Load test", *_state(results), _conditions(results)]
    pictures: list[Picture] = []
    for place, scenario in enumerate(results.scenarios):
        parts += [f"## {plain(scenario.name)}", _what(results, place)]
        parts += _variants(scenario)
        sentences = _recommendation(results, scenario)
        parts += ["### Recommendation", "\n".join(f"- {sentence}" for sentence in sentences)]
        for picture in _pictures(results, place):
            pictures.append(picture)
            parts.append(_shown(picture, scenario, results))
        parts += ["### Figures", *scenario_tables(scenario)]
        parts += _warnings(scenario)
    parts += ["## What the numbers mean", DEFINITIONS.read_text("utf-8").strip()]
    return Document("\n\n".join(parts) + "\n", tuple(pictures))


def _state(results: Results) -> Iterator[str]:
    """Loud where the run must not be trusted."""
    if not results.is_valid:
        problems = "\n".join(f"- {plain(problem)}" for problem in results.problems)
        yield f"**NOT VALID. These figures must not be relied on:**\n\n{problems}"
    if any(variant.stopped for s in results.scenarios for variant in s.variants):
        yield "**Some turns were stopped early**; each is named below the figures of its scenario."
    if results.plan["rounds"] < 2:
        yield "**There was one round, so there are no intervals over rounds.**"


def _conditions(results: Results) -> str:
    """When, where and how long, in one paragraph that holds for every picture and table."""
    plan = results.plan
    where = "; ".join(f"{plain(key)}: {plain(value)}" for key, value in results.conditions.items())
    return (
        f"Started {plain(results.started_at)}, took {results.wall_s / 60:.1f} min. "
        f"Server {plain(plan['target']['url'])}. Rounds: {plan['rounds']}; measured per turn: "
        f"{plan['duration_s']:g} s after a warm-up of {plan['warmup_s']:g} s; seed {plan['seed']}. "
        f"The generator ran on: {where}."
    )


def _what(results: Results, place: int) -> str:
    """The load of a scenario in words."""
    scenario = results.scenarios[place]
    planned: dict[str, Any] = results.plan["scenarios"][place]
    text = (
        f"Model {plain(scenario.model)}, {scenario.operation}; arrivals: "
        f"{_fields(planned['arrivals'])}; inputs: {_fields(planned['inputs'])}"
    )
    if planned["body"]:
        text += f"; with {_fields(planned['body'])}"
    text += f". SLO: {slo_text(scenario.slo)}." if scenario.slo else ". No SLO."
    if planned["arrivals"]["kind"] == "closed":
        text += (
            " The loop is closed: users wait for answers before they ask again, so a slow variant "
            "gets less load, and its latency looks better than users of their own time would feel."
        )
    return text


def _variants(scenario: ScenarioResult) -> Iterator[str]:
    """What the server says each variant is."""
    lines = []
    for variant in scenario.variants:
        server = variant.server
        told = [server.recipe, server.device, server.isa, server.runtime]
        if known := "; ".join(word for word in told if word):
            lines.append(f"- {plain(variant.variant)}: {plain(known)}")
    if lines:
        yield "\n".join(lines)


def _recommendation(results: Results, scenario: ScenarioResult) -> list[str]:
    """A run that must not be relied on recommends nothing."""
    if results.is_valid:
        sentences = advice(scenario, results.plan["attainment"])
    else:
        sentences = ["The run is not valid, so nothing is recommended."]
    return [*sentences, highest_rates(scenario.peaks)] if scenario.peaks else sentences


def _fields(section: dict[str, Any]) -> str:
    """A plan's section as words, nested ones in parentheses."""
    words = []
    for key, value in section.items():
        if isinstance(value, dict):
            words.append(f"{plain(key)} ({_fields(value)})")
        elif isinstance(value, list | tuple):
            items = [f"({_fields(v)})" if isinstance(v, dict) else plain(str(v)) for v in value]
            words.append(f"{plain(key)} {', '.join(items)}")
        elif value is not None:
            words.append(f"{plain(key)} {plain(str(value))}")
    return ", ".join(words)


def _pictures(results: Results, place: int) -> Iterator[Picture]:
    """Those that the scenario has figures for; their names become unique in the report."""
    scenario = results.scenarios[place]
    made = [
        pareto_picture(scenario) if results.is_valid else None,
        latency_cdf(scenario),
        percentiles_over_time(scenario),
        rate_against_latency(results, place),
    ]
    for picture in made:
        if picture is not None:
            yield Picture(f"{picture.name}-{place + 1}", picture.caption, picture.svg)


def _shown(picture: Picture, scenario: ScenarioResult, results: Results) -> str:
    """A picture with its caption and conditions."""
    variants = ", ".join(variant.variant for variant in scenario.variants)
    stopped = ", ".join(variant.variant for variant in scenario.variants if variant.stopped)
    rates = {f"{variant.offered_rate.value:.3g}" for variant in scenario.variants}
    conditions = (
        f"{scenario.model}, {scenario.operation}, {' or '.join(sorted(rates))} requests/s, "
        f"{results.plan['rounds']} rounds; {results.conditions.get('processor', 'unknown')}, "
        f"{results.conditions.get('cores', 'unknown')} cores."
        + (f" Stopped early: {stopped}." if stopped else "")
    )
    text = plain(f"{picture.name}: {variants}")
    return f"![{text}]({picture.name}.svg)\n\n*{plain(f'{picture.caption} {conditions}')}*"


def _warnings(scenario: ScenarioResult) -> Iterator[str]:
    for variant in scenario.variants:
        for reason in variant.stopped:
            yield f"**{plain(variant.variant)} was stopped:** {plain(reason)}."
