"""All fuzzers against one running service, and what came of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import psutil

from tests.fuzz.documented import TIMEOUT_S, Found, ask_all
from tests.fuzz.memory import TOLERANCE, open_files, replicas, resident_bytes, settled
from tests.fuzz.requests_that_are_right import BODIES
from tests.fuzz.wire import make_case, run_case

DIRECT = ("/minilm/int4", "/sentiment/bf16", "/smollm2/int4")
"""Replicas that are asked without the gateway."""

THREADS = 8
SPARE_FILES = 64
"""Connections that a pool keeps open."""


@dataclass
class Report:
    """What a campaign found.

    Attributes:
        cases: Requests or connections, by the fuzzer.
        statuses: Answers of the documented requests.
        faults: Each with how to make it again.
        memory: Resident bytes before and after.
        files: Open files before and after.
    """

    cases: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    memory: tuple[int, int] = (0, 0)
    files: tuple[int, int] = (0, 0)

    def lines(self) -> Iterator[str]:
        """The report, for people."""
        yield f"cases: {', '.join(f'{name} {count:,}' for name, count in self.cases.items())}"
        yield f"answers by status: {dict(sorted(self.statuses.items()))}"
        before, after = (size / 2**20 for size in self.memory)
        grown = f"{after / before - 1:+.1%}"
        yield f"resident: {before:,.0f} MiB before, {after:,.0f} MiB after ({grown})"
        yield f"open files: {self.files[0]} before, {self.files[1]} after"
        yield f"faults: {len(self.faults)}"
        yield from self.faults


def run(url: str, key: str, process: psutil.Process, cases: int, seed: int) -> Report:
    """Fuzz a service of the demo's models.

    Args:
        url: Of the service.
        key: That it asks for.
        process: Of ``quantserve serve``.
        cases: About half are requests of the OpenAPI documents, the others connections.
        seed: Of all of it.
    """
    report = Report()
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S) as http:
        report.faults += _still_right(http)  # and warm, before memory is measured
        memory, files, running = resident_bytes(process), open_files(process), replicas(process)
        _ask_documented(http, cases // 2, seed, report)
        _send_bytes(url, key, cases - cases // 2, seed, report)
        report.faults += _still_right(http)
    after = settled(lambda: resident_bytes(process), memory * (1 + TOLERANCE))
    report.memory = memory, after
    report.files = files, settled(lambda: open_files(process), files + SPARE_FILES)
    if after > memory * (1 + TOLERANCE):
        report.faults.append(f"memory did not come back: {memory:,} bytes before, {after:,} after")
    if report.files[1] > files + SPARE_FILES:
        report.faults.append(f"{report.files[1]} files are open; before it were {files}")
    gone = running.keys() - replicas(process).keys()
    report.faults += [f"{running[process_id]} died" for process_id in gone]
    return report


def _ask_documented(http: httpx.Client, cases: int, seed: int, report: Report) -> None:
    places = ("", *DIRECT)
    found = Found()
    for prefix in places:
        document = http.get(f"{prefix}/openapi.json").raise_for_status().json()
        # The gateway has most of the operations, and all models behind it.
        share = cases // 2 if prefix == "" else cases // 2 // len(DIRECT)
        ask_all(http, prefix, document, share, seed, found)
        report.cases[f"documented{prefix}"] = sum(found.counts.values()) - report.cases.total()
    report.statuses.update(found.counts)
    report.faults += [f"{one} (seed {seed})" for one in found.faults]


def _send_bytes(url: str, key: str, cases: int, seed: int, report: Report) -> None:
    at = httpx.URL(url)
    address = at.host, at.port or 80

    def send(number: int) -> str | None:
        case = make_case(f"{seed}:{number}", key)
        try:
            wrong = run_case(case, address)
        except OSError as error:
            wrong = f"no connection: {error!r}"
        return None if wrong is None else f"{wrong} (--replay {case.seed})"

    with ThreadPoolExecutor(THREADS) as pool:
        report.faults += filter(None, pool.map(send, range(cases)))
    report.cases["bytes"] = cases


def _still_right(http: httpx.Client) -> list[str]:
    """Which of the right requests are not answered."""
    answers = [
        (
            path,
            http.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"}),
        )
        for path, body in BODIES
    ]
    return [f"{path}: {a.status_code} {a.text[:200]}" for path, a in answers if a.is_error]
