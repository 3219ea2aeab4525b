"""Plans: shipped ones, and what is refused, by the path of its key."""

from __future__ import annotations

import orjson
import pytest

from loadtests.arrivals import Closed, measured_s, planned_times
from loadtests.bodies import make_body
from loadtests.inputs import input_source
from loadtests.plan import SHIPPED, find_plan, load_plan
from loadtests.scenario_run import seed_of
from loadtests.section import find_file
from serving.errors import ConfigError
from serving.quality.statistics import share
from serving.settings import read_yaml
from tests.unit.loadtests.plans import make_plan

PLAN = """
scenarios:
  - model: m
    operation: embeddings
    inputs: {synthetic: {}}
    arrivals: {kind: poisson, rate: 5}
"""


@pytest.mark.parametrize("name", ["smoke", "compare", "generation", "soak", "burst", "peak"])
def test_a_shipped_plan_is_found_by_name_and_can_be_read(name) -> None:
    plan = load_plan(find_plan(name))
    for scenario in plan.scenarios:
        assert input_source(scenario.inputs, SHIPPED, (0,))(0, 1)


def test_smoke_takes_less_than_a_minute() -> None:
    plan = load_plan(find_plan("smoke"))
    seconds = sum(
        len(scenario.variants) * (plan.warmup_s + measured_s(scenario.arrivals, plan.duration_s))
        for scenario in plan.scenarios
        if scenario.variants
    )
    assert all(scenario.variants for scenario in plan.scenarios)
    assert seconds * plan.rounds < 50


@pytest.mark.parametrize("name", ["compare", "generation", "soak", "burst"])
def test_a_shipped_plan_plans_enough_requests_to_recommend_something(name) -> None:
    """Even if all meet the SLO, few do not prove it; and a p95 of a round takes 20 of its own."""
    plan = load_plan(find_plan(name))
    for scenario in plan.scenarios:
        seed = seed_of(plan, scenario)
        assert not isinstance(scenario.arrivals, Closed)
        counts = [
            (
                planned_times(
                    scenario.arrivals, plan.warmup_s, plan.duration_s, (*seed, number), SHIPPED
                )
                >= 0
            ).sum()
            for number in range(plan.rounds)
        ]
        assert share(sum(counts), sum(counts)).low >= plan.attainment
        assert min(counts) >= 20


@pytest.mark.parametrize(("name", "minutes"), [("compare", 14.5), ("generation", 9)])
def test_plans_for_the_demo_do_not_take_long(name, minutes) -> None:
    """Half a minute less than what they may take: turns also await their last answers."""
    plan = load_plan(find_plan(name))
    demo = read_yaml(find_file("package:serving.demo/demo.yaml", SHIPPED), "models")
    variants = {model["name"]: len(model["variants"]) for model in demo["models"]}
    seconds = sum(
        variants[scenario.model] * (plan.warmup_s + measured_s(scenario.arrivals, plan.duration_s))
        for scenario in plan.scenarios
    )
    assert seconds * plan.rounds < 60 * minutes


def test_an_unknown_plan_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match="no plan of that name; shipped: burst, compare"):
        find_plan("smoek")


def test_the_address_of_the_command_line_wins(tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN + "target: {url: 'http://a:1', model_template: '{variant}'}")
    plan = load_plan(path, "http://b:2/")
    assert (plan.target.url, plan.target.model_template) == ("http://b:2", "{variant}")
    assert plan.scenarios[0].name == "m"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rate: 5", "rate: 5, rats: 1", r"scenarios\[0\].arrivals.poisson.rats: unknown key"),
        ("rate: 5", "rate: 0", r"scenarios\[0\].arrivals.poisson.rate: .*greater than 0"),
        ("poisson", "uniform", r"scenarios\[0\].arrivals: .*'constant', 'poisson', 'gamma'"),
        ("embeddings", "embed", r"scenarios\[0\].operation: .*'embeddings'"),
        ("{synthetic: {}}", "{}", r"scenarios\[0\].inputs: give either file or synthetic"),
        ("model: m", "model: m\n    slo: {ttft_ms: 5}", r"slo.ttft_ms: embeddings has no tokens"),
        ("model: m", "model: m\n    body: {input: x}", r"body.input: is filled in"),
        ("model: m", "model: m\n    variants: [a, a]", "variants: one is named twice"),
        (
            "model: m",
            "model: m\n    variants: [a]\n    reference: b",
            "reference: 'b' is not among the variants a",
        ),
        (
            "scenarios:",
            "target: {model_template: '{x}'}\nscenarios:",
            "target: model_template: only",
        ),
        ("scenarios:", "target: {url: here}\nscenarios:", "target.url: "),
        ("scenarios:", "rounds: 0\nscenarios:", "rounds: "),
        (
            "operation: embeddings",
            "operation: chat\n    body: {stream: false}\n    slo: {ttft_ms: 5}",
            r"slo\.ttft_ms: tokens are timed only where they are streamed; leave out body\.stream",
        ),
        (
            "operation: embeddings",
            "operation: chat\n    body: {stream: false}\n    slo: {tpot_ms: 5}",
            r"slo\.tpot_ms: tokens are timed only where they are streamed",
        ),
        (
            "rate: 5",
            "rate: 60000",
            r"scenarios\[0\]\.arrivals: some 1,380,000 requests in one turn",
        ),
        ("rate: 5", "rate: 1.0e+9", r"arrivals\.poisson\.rate: .*less than or equal to 100000"),
        (
            "{kind: poisson, rate: 5}",
            "{kind: steps, steps: [{rate: 90000, duration_s: 20}]}",
            r"scenarios\[0\]\.arrivals: some 2,070,000 requests",
        ),
        ("{synthetic: {}}", "{synthetic: {max: 1000000000}}", r"synthetic\.max: .*100000"),
        *(
            ("scenarios:", f"{key}: {value}\nscenarios:", f"{key}: ")
            for key in ("duration_s", "warmup_s", "grace_s", "timeout_s", "attainment")
            for value in (".inf", ".nan", "1.0e+30")
        ),
        *(
            ("scenarios:", f"stop: {{saturation_s: {value}}}\nscenarios:", r"stop\.saturation_s: ")
            for value in (".inf", ".nan", "1.0e+30")
        ),
        ("model: m", "model: m\n    slo: {latency_ms: .inf}", r"slo\.latency_ms: .*finite"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(tmp_path, old, new, message) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        load_plan(path)


def test_a_generation_in_one_piece_may_have_a_limit_of_the_whole(tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    chat = "operation: chat\n    body: {stream: false}\n    slo: {latency_ms: 5}"
    path.write_text(PLAN.replace("operation: embeddings", chat))
    [scenario] = load_plan(path).scenarios
    assert not scenario.is_streamed
    assert orjson.loads(make_body(scenario, "m:a", "text"))["stream"] is False


def test_connections_are_those_of_requests_or_of_users() -> None:
    assert make_plan(max_in_flight=7).most_connections == ("max_in_flight", 7)
    closed = {"arrivals": {"kind": "closed", "users": 8}}
    assert make_plan(scenario=closed, max_in_flight=7).most_connections == (
        "scenarios[0].arrivals.users",
        8,
    )


def test_two_scenarios_of_one_name_are_refused(tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN + PLAN.split("scenarios:")[1])
    with pytest.raises(ConfigError, match=r"scenarios\[1\].name: 'm' is taken"):
        load_plan(path)
