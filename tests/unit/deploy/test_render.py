"""What is rendered: all of it from one place, and fresh."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy import render
from deploy.grafana.boards import FOLDER as DASHBOARDS


def test_rendered_files_are_fresh() -> None:
    assert render.stale() == []


def test_every_dashboard_is_rendered() -> None:
    rendered = {render.FOLDER / name for name in render.FILES}
    assert rendered >= set(DASHBOARDS.iterdir())


def test_check_names_what_is_stale_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["ray.env", "grafana/dashboards/service-health.json"]
    monkeypatch.setattr(render, "FOLDER", tmp_path)
    monkeypatch.setattr(render, "FILES", {name: render.FILES[name] for name in names})
    monkeypatch.setattr(sys, "argv", ["render", "--check"])
    assert render.main() == 1
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == names
    assert list(tmp_path.iterdir()) == []

    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(render.render(name))
    assert render.main() == 0
