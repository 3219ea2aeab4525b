"""What ``quantserve serve`` does before it starts anything."""

import pytest

from serving.app import plan
from serving.artifacts import ArtifactStore
from serving.cli.serve import local_url
from serving.config import ServerConfig
from tests.unit.cli.conftest import Run
from tests.unit.conftest import WriteConfig
from tests.unit.paper import Paper


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("10.1.2.3", "http://10.1.2.3:8000"),
        pytest.param(
            "::1",
            "http://[::1]:8000",
        ),
    ],
)
def test_the_address_under_which_this_machine_reaches_the_service(host: str, expected: str) -> None:
    assert local_url(ServerConfig(host=host)) == expected


@pytest.mark.usefixtures("paper", "store")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--port", "70000"], "server.port: Input should be less than or equal to 65535"),
        ([], "the largest is tiny:"),
    ],
)
def test_what_cannot_be_served_is_refused_before_ray_starts(
    run: Run, write_config: WriteConfig, monkeypatch, options: list[str], expected: str
) -> None:
    monkeypatch.setattr(plan, "available_bytes", lambda: 1)
    result = run("serve", write_config("[{name: folded, runtime: paper}]"), *options)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert expected in result.stderr
    assert result.stdout == ""


def test_where_nothing_can_be_prepared_ray_does_not_start(
    run: Run, write_config: WriteConfig, paper: Paper, store: ArtifactStore
) -> None:
    paper.configure(fault="refuse")
    result = run("serve", write_config("[{name: folded, runtime: paper}]", "letters"))
    assert result.exit_code == 1
    assert "tiny:folded: paper cannot hold [this] checkpoint" in result.stderr
    assert "error: no variant could be prepared" in result.stderr
    assert "starting" not in result.stdout


def test_without_a_command_help_is_shown(run: Run) -> None:
    result = run()
    commands = (
        "serve",
        "models",
        "check",
        "prepare",
        "variants",
        "artifacts",
        "quality",
        "evaluate",
    )
    for command in commands:
        assert command in result.output
