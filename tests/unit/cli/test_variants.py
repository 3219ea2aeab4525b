"""``quantserve variants`` prints what works here, and why the rest does not."""

import io

import pytest
from rich.console import Console

from serving.cli import variants as module
from serving.cli.variants import matrix_table
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from tests.unit.cli.conftest import Run


def lines_of(text: str, recipe: str, runtime: str) -> list[str]:
    return [line for line in text.splitlines() if line.split()[:2] == [recipe, runtime]]


@pytest.mark.usefixtures("paper")
def test_every_cell_is_printed_with_somebody_else_s_too(run: Run) -> None:
    result = run("variants")
    assert result.exit_code == 0
    for recipe in RECIPES:
        for runtime in RUNTIMES:
            assert lines_of(result.stdout, recipe, runtime)
    [folded] = lines_of(result.stdout, "folded", "paper")
    assert folded.split(maxsplit=2)[2].startswith("works here")
    assert "no generators in folded" in folded
    [bf16] = lines_of(result.stdout, "bf16", "paper")
    assert "paper can only be folded" in bf16
    assert "paper and pencil" in result.stdout
    assert "weights measured" in result.stdout
    assert "tasks of encoders: embeddings, classification, rerank, letters" in result.stdout


@pytest.mark.usefixtures("paper")
def test_a_machine_without_cuda_says_so_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "why_no_cuda", lambda: "this machine has no CUDA device")
    out = run("variants").stdout
    assert "cuda: this machine has no CUDA device; runtimes that can use one: torch" in out


@pytest.mark.usefixtures("paper")
def test_a_machine_with_cuda_gets_a_second_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "why_no_cuda", lambda: None)
    out = run("variants").stdout
    assert "on cuda (" in out
    assert len(lines_of(out, "folded", "paper")) == 2


@pytest.mark.usefixtures("paper")
def test_an_entry_that_cannot_be_used_does_not_hide_the_others(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(RECIPES), "_places", {"broken": "no_such_module:RECIPE"})
    result = run("variants")
    assert result.exit_code == 0
    assert "recipe 'broken': no_such_module:RECIPE cannot be used" in result.stdout
    assert "works here" in result.stdout


@pytest.mark.usefixtures("paper")
def test_the_matrix_fits_100_columns() -> None:
    screen = Console(width=100, record=True, file=io.StringIO())
    screen.print(matrix_table("cpu"))
    text = screen.export_text()
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
