"""Samples and results survive their file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from loadtests.results import read_results, write_results
from loadtests.runner import run_plan
from loadtests.samples import COLUMNS, pack, unpack
from serving.errors import ConfigError
from tests.unit.loadtests.plans import make_plan


def test_a_column_is_kept_to_a_millionth() -> None:
    column = np.array([0, 1.5, np.nan, -0.1234567, 1e9])
    np.testing.assert_allclose(unpack(pack(column)), column, atol=5e-7, rtol=0)
    assert not len(unpack(pack(np.empty(0))))


def test_a_thousand_samples_take_few_bytes() -> None:
    assert len(pack(np.arange(1_000) / 50)) < 5_000


async def test_results_are_read_as_they_were_written(server, tmp_path) -> None:
    results = await run_plan(make_plan(server.url), tmp_path, lambda *_: None)
    path = write_results(results, tmp_path / "out")
    again = read_results(tmp_path / "out")
    assert path.name == "results.json"
    assert again.model_dump(mode="json") == results.model_dump(mode="json")
    ours, theirs = (r.scenarios[0].variants[0].samples for r in (results, again))
    for name in COLUMNS:
        np.testing.assert_allclose(getattr(theirs, name), getattr(ours, name), atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        (json.dumps({"schema_version": 1}), "not results of a load test in form 2"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_results(path)
