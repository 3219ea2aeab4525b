"""How the start of a service is shown: a steady table in a terminal, lines anywhere else."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from serving.cli import starting
from serving.cli.starting import (
    READY,
    WAITING,
    StartView,
    VariantProgress,
    count_line,
    is_settled,
    read_progress,
)

NAMES = [("minilm", "fp32"), ("minilm", "int4"), ("smollm2", "bf16")]
LOADING = VariantProgress("loading", "loading")
FAILED = VariantProgress("failed", "failed to start: OSError: [disk]")


def entry(model: str, variant: str, progress: VariantProgress) -> dict[str, Any]:
    failed = progress.state == "failed"
    return {
        "model": model,
        "variant": variant,
        "state": progress.state,
        "failed": failed,
        "reason": progress.reason,
    }


def console(is_terminal: bool = False) -> Console:
    return Console(
        file=StringIO(), force_terminal=is_terminal, width=100, color_system=None, highlight=False
    )


def written(shown: Console) -> str:
    assert isinstance(shown.file, StringIO)
    return shown.file.getvalue()


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> Console:
    """Where failures are printed."""
    instead = console()
    monkeypatch.setattr(starting, "err", instead)
    return instead


def test_who_is_not_named_as_missing_is_ready() -> None:
    answer = {
        "ready": False,
        "not_ready": [entry("smollm2", "bf16", LOADING), entry("minilm", "int4", FAILED)],
    }
    assert read_progress(answer, NAMES) == dict(zip(NAMES, [READY, FAILED, LOADING], strict=True))
    assert read_progress({"ready": True}, NAMES) == dict.fromkeys(NAMES, READY)


@pytest.mark.parametrize(
    ("last", "expected"),
    [(READY, True), (FAILED, True), (LOADING, False), (WAITING, False)],
)
def test_a_start_is_over_when_every_variant_is_ready_or_has_failed(
    last: VariantProgress, expected: bool
) -> None:
    assert is_settled(dict(zip(NAMES, [READY, FAILED, last], strict=True))) is expected


def test_the_count_leaves_out_what_nobody_does() -> None:
    assert count_line(dict.fromkeys(NAMES, READY)) == "3 of 3 variants ready"
    some = dict(zip(NAMES, [READY, LOADING, WAITING], strict=True))
    assert count_line(some) == "1 of 3 variants ready, 1 loading, 1 waiting"


def test_without_a_terminal_every_change_is_a_line_of_its_own(errors: Console) -> None:
    shown = console()
    with StartView(NAMES, 0.0, shown) as view:
        view.show_stage("starting Ray")
        view.show(dict.fromkeys(NAMES, WAITING))
        for _ in range(2):
            view.show(dict(zip(NAMES, [READY, LOADING, WAITING], strict=True)))
    said = [line.partition(" s  ")[2] for line in written(shown).splitlines()]
    assert said == ["starting Ray", "minilm:fp32: ready", "minilm:int4: loading"]
    assert written(errors) == ""


def test_a_terminal_shows_every_variant_by_model_under_the_count(errors: Console) -> None:
    shown = console(is_terminal=True)
    with StartView(NAMES, 0.0, shown) as view:
        view.show(dict(zip(NAMES, [READY, LOADING, WAITING], strict=True)))
        shown.print("printed beside it")
    screen = written(shown)
    assert "1 of 3 variants ready, 1 loading, 1 waiting" in screen
    assert "minilm   fp32 ready  int4 loading" in screen
    assert "smollm2  bf16 waiting" in screen
    assert "printed beside it" in screen


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_failure_is_always_printed_once_and_as_it_is(errors: Console, is_terminal: bool) -> None:
    with StartView(NAMES, 0.0, console(is_terminal)) as view:
        for _ in range(2):
            view.show(dict(zip(NAMES, [READY, FAILED, WAITING], strict=True)))
    assert written(errors).count("minilm:int4: failed to start: OSError: [disk]") == 1
