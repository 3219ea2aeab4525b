"""Several artifacts are made at once where memory and cores allow, equal ones once."""

import errno
import os
import re
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

from serving.artifacts import (
    AgreementFloor,
    ArtifactStore,
    CalibrationOrigin,
    PreparingEvent,
    ensure,
    prepare_all,
    preparing,
)
from tests.unit.paper import Paper

PLENTY = 10**12


class Events:
    """Notes what is told, and how many were being made at once."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()

    def __call__(self, event: PreparingEvent) -> None:
        with self._lock:
            self.told.append((event.request.variant, event.state))
            if event.state == "preparing":
                self._now += 1
            elif event.state in ("made", "failed"):
                self._now -= 1
            self.most_at_once = max(self.most_at_once, self._now)


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has three."""
    monkeypatch.setattr(preparing, "available_cores", lambda: 3)


def test_each_request_ends_in_order(paper: Paper, store: ArtifactStore) -> None:
    requests = [paper.request(f"v{folds}", options={"folds": folds}) for folds in range(3)]
    events = Events()
    ended = prepare_all(requests, store, PLENTY, events)
    assert [(event.request.variant, event.state) for event in ended] == [
        ("v0", "made"),
        ("v1", "made"),
        ("v2", "made"),
    ]
    assert all(event.artifact is not None for event in ended)
    again = prepare_all(requests, store, PLENTY, Events())
    assert [event.state for event in again] == ["present"] * 3
    assert paper.tries == 3


def test_equal_requests_are_made_once(paper: Paper, store: ArtifactStore) -> None:
    ended = prepare_all([paper.request("a"), paper.request("b")], store, PLENTY, Events())
    assert [(event.request.variant, event.state) for event in ended] == [
        ("a", "made"),
        ("b", "present"),
    ]
    assert ended[0].artifact == ended[1].artifact
    assert paper.tries == 1


@pytest.mark.parametrize(("available", "at_once"), [(PLENTY, 3), (25, 2), (20, 2), (15, 1), (5, 1)])
def test_as_many_at_once_as_memory_and_cores_allow(
    paper: Paper, store: ArtifactStore, available: int, at_once: int
) -> None:
    paper.configure(pause_s=0.3)
    requests = [
        paper.request(f"v{folds}", options={"folds": folds}, preparing_bytes=10)
        for folds in range(4)
    ]
    events = Events()
    ended = prepare_all(requests, store, available, events)
    assert [event.state for event in ended] == ["made"] * 4
    assert events.most_at_once == at_once


def test_one_that_fails_does_not_keep_the_others(paper: Paper, store: ArtifactStore) -> None:
    elsewhere = paper.request("elsewhere", wanted_device="cuda")
    ended = prepare_all([elsewhere, paper.request()], store, PLENTY, Events())
    assert [event.state for event in ended] == ["failed", "made"]
    assert ended[0].reason.startswith("origami:elsewhere: device is cuda")


def test_what_cannot_be_made_says_why_for_each(paper: Paper, store: ArtifactStore) -> None:
    paper.configure(fault="refuse")
    ended = prepare_all([paper.request("a"), paper.request("b")], store, PLENTY, Events())
    assert [event.state for event in ended] == ["failed", "failed"]
    assert ended[0].reason == "origami:a: paper cannot hold [this] checkpoint"
    assert paper.tries == 1


@pytest.mark.parametrize(
    ("module", "function", "number", "reason"),
    [
        (tempfile, "mkdtemp", errno.ENOSPC, r"artifacts\.folder: .* No space left on device"),
        (subprocess, "Popen", errno.ENOMEM, "it could not be prepared: Cannot allocate memory"),
    ],
)
def test_what_the_machine_lacks_fails_what_has_to_be_made_alone(
    paper: Paper,
    store: ArtifactStore,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    function: str,
    number: int,
    reason: str,
) -> None:
    there, missing = paper.request("there"), paper.request("missing", options={"folds": 2})
    ensure(there, store)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, function, refuse)
    ended = prepare_all([there, missing], store, PLENTY, Events())
    assert [event.state for event in ended] == ["present", "failed"]
    assert re.fullmatch(f"origami:missing: {reason}", ended[1].reason)


def test_each_request_is_held_to_its_own_floor(
    paper: Paper, store: ArtifactStore, tmp_path: Path
) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(f'{{"input": "text {n}"}}\n' for n in range(50)))
    origin = CalibrationOrigin(name="t", path=file, is_labelled=False, count=9, holds_out=True)
    reference = paper.request("reference", options={"folds": 1})
    requests = [
        paper.request(
            name,
            options={"folds": 2},
            floor=AgreementFloor(least=least, origin=origin, reference=reference),
        )
        for name, least in (("strict", 0.9), ("lax", 0.0001), ("lax too", 0.0001))
    ]
    ended = prepare_all(requests, store, PLENTY, Events())
    states = {event.request.variant: event.state for event in ended}
    assert states == {"strict": "failed", "lax": "made", "lax too": "present"}
    assert "below its min_agreement 0.9: " in ended[0].reason


def test_one_that_another_makes_is_waited_for(paper: Paper, store: ArtifactStore) -> None:
    paper.configure(pause_s=1)
    other = threading.Thread(target=ensure, args=(paper.request(), store))
    other.start()
    while paper.tries == 0:
        time.sleep(0.02)
    events = Events()
    [ended] = prepare_all([paper.request()], store, PLENTY, events)
    other.join()
    assert ended.state == "present"
    assert ("folded", "waiting") in events.told
    assert paper.tries == 1


def test_a_stop_gives_up_what_is_being_made(paper: Paper, store: ArtifactStore) -> None:
    paper.configure(pause_s=60)
    stop = threading.Event()

    def stop_once_it_began(event: PreparingEvent) -> None:
        if event.state == "preparing":
            stop.set()

    requests = [paper.request(f"v{folds}", options={"folds": folds}) for folds in range(5)]
    assert prepare_all(requests, store, PLENTY, stop_once_it_began, stop) == []
    assert store.ids() == []
    assert {path.name for path in store.folder.iterdir()} <= {"digests.json"}
