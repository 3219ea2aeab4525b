"""The inputs that every variant answers once it is up."""

import json
from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.quality.probes import (
    PROMPTS,
    TEXTS,
    probe_line,
    read_pair_probes,
    read_text_probes,
)


def lines(count: int) -> str:
    return "".join(f'{{"input": "text {number}"}}\n' for number in range(count))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "probes.jsonl"


@pytest.mark.parametrize("shipped", [TEXTS, PROMPTS], ids=["texts", "prompts"])
def test_the_package_has_texts_of_every_length(shipped: Path) -> None:
    probes = read_text_probes(None, shipped)
    assert len(probes) >= 64
    assert len(set(probes)) == len(probes)
    words = [len(probe.split()) for probe in probes]
    # Some texts have no spaces at all.
    assert 1 <= min(words) <= 3
    assert 30 <= max(words) <= 90


def test_prompts_are_short() -> None:
    assert max(len(prompt.split()) for prompt in read_text_probes(None, PROMPTS)) <= 60


@pytest.mark.parametrize("count", [11, 1_000])
def test_a_file_of_one_s_own_is_read_in_order(file: Path, count: int) -> None:
    file.write_text(lines(count))
    assert read_text_probes(file, TEXTS) == tuple(f"text {number}" for number in range(count))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ": no texts"),
        (lines(10), ": 10 probes; at least 11 are needed"),
        (lines(1_001), ": 1,001 texts; at most 1,000 are read"),
        (lines(3) + "\nnot JSON\n", ": line 5: not JSON"),
        (lines(3) + '{"text": "a"}', ": line 4: input: Field required"),
        (lines(3) + '{"input": "a", "label": "b"}', ": line 4: label: unknown key"),
        (lines(3) + '{"input": ""}', ": line 4: input: String should have at least 1"),
        (lines(3) + '{"input": ' + "[" * 100_000, ": line 4: not JSON"),
        (lines(3) + '["a"]', ": line 4: (top level): Input should be"),
    ],
)
def test_a_wrong_file_is_refused_with_file_and_line(file: Path, content: str, said: str) -> None:
    file.write_text(content)
    with pytest.raises(ConfigError) as error:
        read_text_probes(file, TEXTS)
    assert str(error.value).startswith(f"{file}{said}")


def test_a_missing_file_and_one_that_is_no_text_are_named(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"probes\.jsonl: cannot be read"):
        read_text_probes(file, TEXTS)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"probes\.jsonl: cannot be read"):
        read_text_probes(file, TEXTS)


def test_the_home_folder_may_be_written_as_a_tilde(file: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    file.write_text(lines(11))
    assert len(read_text_probes(Path("~/probes.jsonl"), TEXTS)) == 11


def test_a_text_may_hold_any_kind_of_line_end(file: Path) -> None:
    texts = [f"{number}\u2028\u0085\r\nend" for number in range(11)]
    file.write_text("\r\n".join(json.dumps({"input": text}, ensure_ascii=False) for text in texts))
    assert read_text_probes(file, TEXTS) == tuple(texts)


def test_pairs_have_a_query_and_a_document(file: Path) -> None:
    pairs = tuple((f"query {number}", f"document {number}") for number in range(11))
    file.write_text("\n".join(json.dumps(probe_line(pair)) for pair in pairs))
    assert read_pair_probes(file) == pairs
    file.write_text(lines(11))
    with pytest.raises(ConfigError, match=r"line 1: query: Field required"):
        read_pair_probes(file)


def test_the_package_has_pairs() -> None:
    pairs = read_pair_probes(None)
    assert len(set(pairs)) == len(pairs) >= 50
