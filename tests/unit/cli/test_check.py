"""``quantserve check`` prints a plan, or one clean message."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from serving.app import plan
from serving.artifacts import ArtifactStore, ensure
from serving.artifacts.pass_times import write_pass_times
from serving.cli.check import plan_table
from serving.settings import load_config
from tests.unit.cli.conftest import Run
from tests.unit.conftest import WriteConfig
from tests.unit.paper import Paper

FOLDED = "{name: folded, runtime: paper}"
TWO = f"[{FOLDED}, {{name: twice, recipe: folded, runtime: paper, options: {{folds: 2}}}}]"

pytestmark = pytest.mark.usefixtures("paper", "store")


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has 16 GiB left."""
    monkeypatch.setattr(plan, "available_bytes", lambda: 16 * 1024**3)


def test_a_good_config_prints_every_variant(run: Run, write_config: WriteConfig) -> None:
    scaled = "{name: folded, runtime: paper, autoscaling: {min: 2, max: 3}}"
    result = run("check", write_config(f"[{scaled}, {{name: fp32, runtime: paper}}]"))
    assert result.exit_code == 0
    for word in ("tiny:folded", "tiny:fp32", "folded, paper, cpu", "2–3", "missing"):
        assert word in result.stdout
    assert "16,384.0 MiB are available" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last == "all is well: 2 variants can be prepared and served"


def numbers_of(text: str, first: str) -> list[float]:
    """The sizes in the row of a table that begins with this word."""
    [line] = [line for line in text.splitlines() if line.split()[:1] == [first]]
    return [float(word.replace(",", "")) for word in line.split() if word[0].isdigit()]


def test_rows_sum_to_what_is_needed(run: Run, write_config: WriteConfig) -> None:
    result = run("check", write_config(TWO, "letters"))
    rows = ["tiny:folded", "tiny:twice", "shared", "service"]
    each = [numbers_of(result.stdout, first)[-1] for first in rows]
    assert each[2:] == [3.0, 1_200.0]
    [together] = numbers_of(result.stdout, "together")
    assert together == pytest.approx(sum(each), abs=0.2)
    assert f"needs about {together:,.1f} MiB, " in result.stdout


def test_what_preparing_needs_is_said_to_be_that(
    run: Run, write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SERVICE_BYTES", 0)
    result = run("check", write_config(f"[{FOLDED}]", "letters"))
    assert "needs about 20.0 MiB to prepare, " in result.stdout


def test_what_is_prepared_already_is_told(
    run: Run, write_config: WriteConfig, store: ArtifactStore
) -> None:
    config = write_config(TWO, "letters")
    [folded, twice] = plan.make_plan(load_config(config)).variants
    first, second = ensure(folded.artifact, store), ensure(twice.artifact, store)
    (second.weights_folder / "first.bin").unlink()
    lines = run("check", config).stdout.splitlines()
    [line] = [line for line in lines if "tiny:folded" in line]
    assert first.id[:8] in line
    [line] = [line for line in lines if "tiny:twice" in line]
    assert "damaged" in line


def test_too_little_to_calibrate_with_is_told(run: Run, write_config: WriteConfig) -> None:
    result = run("check", write_config("[{name: measured, runtime: paper}]"))
    assert result.exit_code == 0
    assert (
        "tiny:measured: calibrates with 72 inputs of 300 asked for: probes has no more"
        in result.stdout
    )


def test_a_floor_is_told_and_not_measured(
    run: Run, write_config: WriteConfig, paper: Paper
) -> None:
    entry = "{name: folded, runtime: paper, min_agreement: 0.98, calibration: {data: probes}}"
    result = run("check", write_config(f"[{entry}]"))
    assert result.exit_code == 0
    assert (
        "tiny:folded: `prepare` measures its cosine to fp32 on torch over 14 held-out inputs of "
        "probes, and installs nothing below 0.98"
    ) in result.stdout
    assert paper.tries == 0


def test_what_was_measured_to_be_slower_than_the_reference_is_told(
    run: Run, write_config: WriteConfig, store: ArtifactStore
) -> None:
    config = write_config(TWO, "letters")
    assert "slower" not in run("check", config).stdout
    for planned, seconds in zip(
        plan.make_plan(load_config(config)).variants, (0.02, 0.05), strict=True
    ):
        write_pass_times(ensure(planned.artifact, store), {1: seconds})
    said = "slower than folded on this CPU: a pass takes 50.0 ms, one of folded 20.0 ms"
    assert f"tiny:twice is {said}" in run("check", config).stdout


def test_a_plan_with_long_names_fits_80_columns(write_config: WriteConfig) -> None:
    file = write_config("[{name: int8-dynamic, recipe: fp32, runtime: paper}]", "generation")
    file.write_text(file.read_text().replace("tiny", "sentiment"))
    screen = Console(width=80, record=True, file=io.StringIO())
    screen.print(plan_table(plan.make_plan(load_config(file)), ["0123abcd"]))
    text = screen.export_text()
    assert "KV cache" in text
    assert "0123abcd" in text
    assert "sentiment:int8-dynamic" in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"variants": "[fp32, int2]"},
            "models[0].variants[1].recipe: unknown recipe 'int2'; known: fp32",
        ),
        (
            {"variants": "[{name: fp32, runtime: pen}]"},
            "models[0].variants[0].runtime: unknown runtime 'pen'; known: torch",
        ),
        ({"variants": "[auto]"}, "models[0].variants[0].name: 'auto' is reserved"),
        ({"task": "poetry"}, "models[0].task: unknown task 'poetry'"),
        (
            {"variants": "[{name: fp32, draft: {variant: bf16}}, bf16]"},
            "models[0].variants[0].draft: a key of generators",
        ),
        (
            {"variants": "[fp32, {name: bf16, source: /nowhere}]"},
            "models[0].variants[1].source: ",
        ),
        ({"more": "sever: {}"}, "sever: unknown key"),
        ({"more": "- ]["}, "not valid YAML"),
    ],
)
def test_a_bad_config_prints_one_message(
    run: Run, write_config: WriteConfig, arguments: dict[str, str], expected: str
) -> None:
    file = write_config(**arguments)
    result = run("check", file)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {file}: {expected}")
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_a_plan_that_does_not_fit_is_printed_and_refused(
    run: Run, write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "available_bytes", lambda: 1024**2)
    result = run("check", write_config(TWO))
    assert result.exit_code == 1
    assert "tiny" in result.stdout
    assert "the largest is tiny:" in result.stderr


def test_a_missing_file_is_named(run: Run, tmp_path: Path) -> None:
    result = run("check", tmp_path / "absent.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {tmp_path / 'absent.yaml'}: cannot be read")


@pytest.mark.parametrize("name", ["[prod].yaml", "[/prod].yaml"])
def test_brackets_in_a_message_are_printed(run: Run, tmp_path: Path, name: str) -> None:
    result = run("check", tmp_path / name)
    assert result.exit_code == 1
    assert name in result.stderr
