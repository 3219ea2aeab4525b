"""``quantserve check`` prints a plan, or one clean message."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from serving.app import plan
from serving.cli.check import plan_table
from serving.settings import load_config
from tests.unit.cli.conftest import Run
from tests.unit.conftest import WriteConfig


@pytest.fixture(autouse=True)
def memory(monkeypatch) -> None:
    """The machine has 16 GiB left."""
    monkeypatch.setattr(plan, "available_bytes", lambda: 16 * 1024**3)


def test_a_good_config_prints_every_variant(run: Run, write_config: WriteConfig) -> None:
    result = run("check", write_config("[{name: fp32, autoscaling: {min: 2, max: 3}}, bf16]"))
    assert result.exit_code == 0
    assert [word in result.stdout for word in ("tiny", "fp32", "bf16", "2–3")] == [True] * 4
    assert "16,384.0 MiB are available" in result.stdout


def test_a_plan_with_long_names_fits_80_columns(write_config: WriteConfig) -> None:
    file = write_config("[int8-dynamic]", "generation")
    file.write_text(file.read_text().replace("tiny", "sentiment"))
    screen = Console(width=80, record=True, file=io.StringIO())
    screen.print(plan_table(plan.make_plan(load_config(file))))
    text = screen.export_text()
    assert "KV cache" in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"variants": "[fp32, int2]"}, "error: models[0].variants[1].name: unknown variant 'int2'"),
        ({"variants": "[auto]"}, "models[0].variants[0].name: 'auto' is reserved"),
        ({"task": "poetry"}, "error: models[0].task: unknown task 'poetry'"),
        ({"more": "sever: {}"}, "sever: unknown key"),
        ({"more": "- ]["}, "not valid YAML"),
    ],
)
def test_a_bad_config_prints_one_message(
    run: Run, write_config: WriteConfig, arguments: dict[str, str], expected: str
) -> None:
    result = run("check", write_config(**arguments))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert expected in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_a_plan_that_does_not_fit_is_printed_and_refused(
    run: Run, write_config: WriteConfig, monkeypatch
) -> None:
    monkeypatch.setattr(plan, "available_bytes", lambda: 1024**2)
    result = run("check", write_config())
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
