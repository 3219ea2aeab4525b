"""What is sent: files and random words."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from loadtests.arrivals import Poisson, planned_times
from loadtests.inputs import Inputs, Synthetic, input_source, read_inputs
from serving.errors import ConfigError

HERE = Path(__file__).parent


def test_lines_of_every_kind_are_read(tmp_path) -> None:
    path = tmp_path / "inputs.jsonl"
    path.write_text(
        '{"input": "a", "label": "x"}\n\n{"prompt": "b"}\n{"messages": [{"role": "r"}]}'
    )
    assert read_inputs(path) == ["a", "b", ({"role": "r"},)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"input": "a"}\n{"text": "b"}', "line 2: expected a text"),
        ('{"input": ""}', "line 1: expected a text"),
        ("[1]", "line 1: expected a JSON object"),
        ("{", "line 1: "),
        ("\n", "no inputs in it"),
    ],
)
def test_a_line_that_cannot_be_sent_is_named(tmp_path, text, message) -> None:
    path = tmp_path / "inputs.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_inputs(path)


def test_no_line_comes_twice_before_all_have_come_once(tmp_path) -> None:
    lines = [f"text {number}" for number in range(10)]
    (tmp_path / "inputs.jsonl").write_text("\n".join(f'{{"input": "{line}"}}' for line in lines))
    choose = input_source(Inputs(file="inputs.jsonl"), tmp_path, (0,))
    first, second, third = choose(0, 4), choose(4, 6), choose(10, 10)
    assert set(first + second) == set(third) == set(lines)
    assert first + second != third
    assert choose(4, 6) == second


@pytest.mark.parametrize(
    ("synthetic", "shortest", "longest"),
    [
        (Synthetic(distribution="constant", mean=7), 7, 7),
        (Synthetic(distribution="uniform", min=3, max=5), 3, 5),
        (Synthetic(distribution="lognormal", mean=20, sigma=2, min=2, max=30), 2, 30),
        (Synthetic(distribution="constant", mean=7, max=6), 6, 6),
    ],
)
def test_random_texts_have_the_lengths(synthetic, shortest, longest) -> None:
    choose = input_source(Inputs(synthetic=synthetic), HERE, (0,))
    texts = choose(0, 300)
    lengths = [len(str(text).split()) for text in texts]
    assert (min(lengths), max(lengths)) == (shortest, longest)
    assert texts == choose(0, 300)
    assert texts != choose(300, 300)


def test_a_file_of_a_package_is_found() -> None:
    choose = input_source(Inputs(file="package:serving.demo/reviews_test.jsonl"), HERE, (0,))
    assert len(choose(0, 5)) == 5


def test_a_package_is_not_imported(tmp_path, monkeypatch) -> None:
    inner = tmp_path / "carrier" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner.parent, inner):
        (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (inner / "texts.jsonl").write_text('{"input": "a"}')
    monkeypatch.syspath_prepend(tmp_path)
    choose = input_source(Inputs(file="package:carrier.inner/texts.jsonl"), HERE, (0,))
    assert choose(0, 1) == ["a"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("none.jsonl", "no such file"),
        ("x" * 300, "File name too long"),
        ("~no-such-user-here/a.jsonl", "home directory"),
        ("package:serving.demo", "no such file"),
        ("package:serving.demo/none", "no such file"),
        ("package:no_such/a", "no Python package 'no_such' is installed"),
        ("package:serving.no_such/a", r"no Python package 'serving\.no_such' is installed"),
        ("package:__main__/a", "no Python package '__main__' is installed"),
        ("package:", "expected package:import_name/path"),
        ("package:/etc/passwd", "expected package:import_name/path"),
        ("package:../x", "expected package:import_name/path"),
        ("package:serving..demo/x", "expected package:import_name/path"),
        ("package:serving.demo/../errors.py", "may not leave the package"),
        ("package:serving//etc/passwd", "may not leave the package"),
    ],
)
def test_a_missing_file_is_named(file, message) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(file)}: .*{message}"):
        input_source(Inputs(file=file), HERE, (0,))


def test_lengths_do_not_follow_the_gaps_between_requests() -> None:
    """Both come of one seed: where they are the same numbers, long texts come after long gaps."""
    gaps = np.diff(planned_times(Poisson(kind="poisson", rate=50), 0, 40, (0, 5, 0), HERE))
    texts = input_source(Inputs(synthetic=Synthetic()), HERE, (0, 5))(0, len(gaps) + 1)
    lengths = [len(str(text).split()) for text in texts[1:]]
    assert abs(np.corrcoef(gaps, lengths)[0, 1]) < 0.1
    first = np.corrcoef(gaps, [len(str(text).split()) for text in texts[:-1]])[0, 1]
    assert abs(first) < 0.1
