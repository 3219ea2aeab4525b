"""The report as files: what a reader finds in them."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest

from loadtests.cli import summary_table
from loadtests.report.document import Document, report
from loadtests.report.files import write_report
from loadtests.report.measures import GROUPS
from loadtests.results import Peak, Probe, Results
from loadtests.runner import run_plan
from tests.unit.loadtests.plans import make_plan
from tests.unit.loadtests.report.runs import Made, make_results

MIB = 1024**2
VARIANTS = {
    "fp32": Made(0.02, weights=90 * MIB),
    "int8-dynamic": Made(0.01, off_labels=9, weights=30 * MIB),
    "worse_|one": Made(0.03, off_labels=40, weights=95 * MIB, num_errors=2),
}
PICTURES = ("pareto-1", "latency-cdf-1", "latency-over-time-1", "rate-latency-1")


class Page(HTMLParser):
    """What a page shows and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: dict[str, str] = {}
        self.headings: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            given = dict(attrs)
            self.images[str(given["alt"])] = str(given["src"])
        elif tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "th" and data.strip():
            self.headings.append(data)


def peak(variant: str) -> Peak:
    probes = [
        Probe(
            rate=rate,
            achieved_rate=rate,
            p50=0.1 * rate,
            p99=None if rate < 20 else 0.2 * rate,
            counted=400,
            attainment=1,
            met=True,
            why_not="",
        )
        for rate in (10.0, 40.0)
    ]
    return Peak(variant=variant, rate=40, missed_at=44, probes=tuple(probes))


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results(VARIANTS, peaks=tuple(map(peak, VARIANTS)))


@pytest.fixture(scope="module")
def document(results) -> Document:
    return report(results)


def test_the_page_holds_every_variant_and_picture_and_loads_nothing(results, tmp_path) -> None:
    page = Page(write_report(results, tmp_path).read_text("utf-8"))
    assert not page.open
    assert [alt.partition(":")[0] for alt in page.images] == list(PICTURES)
    for alt, source in page.images.items():
        start = "data:image/svg+xml;base64,"
        assert source.startswith(start)
        svg = base64.b64decode(source.removeprefix(start)).decode()
        assert not re.search(r'(href|src)="(?!#)', svg)
        assert all(variant in svg and variant in alt for variant in VARIANTS)
    for name in ("fp32 (reference)", "int8-dynamic", "worse_|one"):
        assert page.headings.count(name) >= 5


def test_the_pictures_of_the_markdown_lie_beside_it(results, tmp_path) -> None:
    write_report(results, tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    named = re.findall(r"\]\(([^)]+\.svg)\)", text)
    assert named == [f"{name}.svg" for name in PICTURES]
    assert all((tmp_path / name).read_text("utf-8").startswith("<?xml") for name in named)


def test_the_same_results_give_the_same_bytes(results, document) -> None:
    assert report(results) == document


def test_every_measure_is_a_row_or_said_to_be_unknown(results, document) -> None:
    rows = re.findall(r"^\| ([^|]+) \|", document.markdown, re.MULTILINE)
    (unknown,) = re.findall(r"^Not known of any variant.+", document.markdown, re.MULTILINE)
    for group in GROUPS:
        for measure in group.measures:
            is_known = any(measure.of(v) is not None for v in results.scenarios[0].variants)
            assert (measure.name in rows) == is_known
            assert is_known or measure.name in unknown or f"{group.title}." in unknown


def test_a_row_has_intervals_ratios_and_dashes(document) -> None:
    p95, agreement, errors = (
        re.findall(rf"^\| {name} \|(.+)\|$", document.markdown, re.MULTILINE)[0].split(" | ")
        for name in ("p95, ms", "agreement", r"errors: http\\_503")
    )
    assert re.fullmatch(r" 2\d\.\d \(\d\d\.\d … \d\d\.\d\)", p95[0])
    interval = r"\(0\.[45]\d … 0\.[45]\d\)"
    assert re.fullmatch(rf"1\d\.\d \(\d\d\.\d … \d\d\.\d\) 0\.[45]\d× {interval}", p95[1])
    assert [cell.strip() for cell in errors] == ["0", "0", "8"]
    assert agreement[0].strip() == "–"
    assert agreement[1].startswith("0.9550 (0.93")


def test_the_caption_names_the_dominated_and_the_conditions(document) -> None:
    text = document.markdown
    assert "By p95 latency from the planned time: dominated worse\\_\\|one; joined none" in text
    assert "Made up, 2 cores" in text


def test_an_invalid_or_stopped_run_says_so_at_the_top() -> None:
    invalid = report(make_results(VARIANTS, lag_s=0.05)).markdown
    assert "NOT VALID" in invalid[:600]
    assert "the generator lagged" in invalid[:600]
    stopped = report(make_results({"fp32": Made(stopped="too much")}, rounds=1)).markdown
    assert "stopped early" in stopped[:800]
    assert "one round, so there are no intervals" in stopped[:800]
    assert "**fp32 was stopped:** round 1: too much" in stopped
    assert "NOT VALID" not in stopped


def test_a_run_that_is_not_valid_recommends_nothing_and_ranks_nobody() -> None:
    results = make_results(VARIANTS, slo={"latency_ms": 500})
    valid = report(results).markdown
    assert "** meets it" in valid
    assert "pareto-1" in valid
    peaks = (Peak(variant="fp32", rate=40, missed_at=44, probes=(), note="why\\not"),)
    scenario = results.scenarios[0].model_copy(update={"peaks": peaks})
    cut_short = {"problems": ("interrupted in round 2",), "scenarios": (scenario,)}
    text = report(results.model_copy(update=cut_short)).markdown
    assert "The run is not valid, so nothing is recommended." in text
    assert "** meets it" not in text
    assert "pareto" not in text
    assert "best of three turns each: fp32 40/s (missed at 44/s; why\\\\not)." in text


def test_the_share_that_met_the_slo_is_one_everywhere() -> None:
    results = make_results({"fp32": Made(num_errors=3)}, slo={"latency_ms": 500})
    text = report(results).markdown
    (row,) = re.findall(r"^\| SLO met, % \| (.+) \|$", text, re.MULTILINE)
    assert row.startswith("98.50 (97.")
    assert f"fp32 with {row} %" in text
    terminal = next(iter(summary_table(results.scenarios[0]).columns[6].cells))
    assert terminal == "98.5 (97.4 … 99.1)"


def test_memory_that_grows_is_seen() -> None:
    text = report(make_results({"fp32": Made(growth=5 * MIB), "int4": Made()}, rounds=4)).markdown
    assert "| resident, first → last round, MiB | 100.0 → 115.0 | – |" in text
    once = report(make_results({"fp32": Made(growth=5 * MIB)}, rounds=1)).markdown
    assert "first → last round, MiB" not in once


def test_a_variant_without_a_single_success_does_not_break_the_report() -> None:
    dead = make_results({"fp32": Made(num_errors=200), "int4": Made()})
    text = report(dead).markdown
    assert "no request was answered with success" in text
    assert "rate-latency" not in text


def test_a_run_without_any_success_is_reported() -> None:
    text = report(make_results({"fp32": Made(num_errors=200)})).markdown
    assert "NOT VALID" in text


async def test_a_real_run_of_streams_is_reported(server, tmp_path) -> None:
    plan = make_plan(server.url, {"slo": {"ttft_ms": 60_000}}, operation="completions", rounds=2)
    text = report(await run_plan(plan, tmp_path, lambda *_: None)).markdown
    for row in ("TTFT p50, ms", "TPOT p50, ms", "output tokens/s", "common prefix", "queue, ms"):
        assert f"\n| {row} |" in text
    assert "TTFT ≤ 60000 ms" in text
    assert "- int4: as trained; cpu" in text
