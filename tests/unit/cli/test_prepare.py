"""``quantserve prepare`` makes what a configuration needs, and says what it made."""

import re

import pytest

from serving.artifacts import ArtifactStore
from tests.unit.cli.conftest import Run
from tests.unit.conftest import WriteConfig
from tests.unit.paper import Paper

FOLDED = "{name: folded, runtime: paper}"
TWICE = "{name: twice, recipe: folded, runtime: paper, options: {folds: 2}}"


def test_each_variant_gets_a_line(
    run: Run, write_config: WriteConfig, paper: Paper, store: ArtifactStore
) -> None:
    config = write_config(f"[{FOLDED}, {TWICE}]", "letters")
    first = run("prepare", config)
    assert first.exit_code == 0
    rows = re.findall(
        r"^([0-9a-f]{8})  (\S+): made in [\d.]+ s, [\d.]+ MiB; one corner stayed white$",
        first.stdout,
        re.MULTILINE,
    )
    assert [name for _, name in rows] == ["tiny:folded", "tiny:twice"]
    assert sorted(short for short, _ in rows) == sorted(full[:8] for full in store.ids())
    assert f"2 variants; artifacts in {store.folder}" in first.stdout
    assert "preparing: tiny:folded" in first.stderr
    second = run("prepare", config)
    assert second.exit_code == 0
    assert second.stdout.count(": present, ") == 2
    assert second.stderr.strip() == ""
    assert paper.tries == 2


def test_what_fails_is_told_and_the_others_are_made(
    run: Run, write_config: WriteConfig, paper: Paper, store: ArtifactStore
) -> None:
    paper.configure(fault="refuse", only="2")
    result = run("prepare", write_config(f"[{FOLDED}, {TWICE}]", "letters"))
    assert result.exit_code == 1
    assert "tiny:twice: paper cannot hold [this] checkpoint" in result.stderr
    assert "tiny:folded: made in" in result.stdout
    assert "Traceback" not in result.output
    assert len(store.ids()) == 1


@pytest.mark.usefixtures("paper", "store")
def test_a_wrong_config_is_refused(run: Run, write_config: WriteConfig) -> None:
    file = write_config("[int2]")
    result = run("prepare", file)
    assert result.exit_code == 1
    assert f"{file}: models[0].variants[0].recipe: unknown recipe 'int2'" in result.stderr
