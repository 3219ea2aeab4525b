"""Labelled data of each kind, and what is refused."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ConfigError
from serving.quality import dataset, json_lines
from serving.quality.dataset import (
    PIECE_CHARACTERS,
    Example,
    Passage,
    cut_text,
    read_examples,
    read_passages,
    refuse_labels,
)

READERS: dict[str, Callable[[Path], Sequence[Example | Passage]]] = {
    "examples": read_examples,
    "texts": partial(read_examples, need_labels=False),
    "passages": read_passages,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.jsonl"


def refusal(path: Path, reader: str) -> str:
    with pytest.raises(ConfigError) as error:
        READERS[reader](path)
    return str(error.value)


def test_a_classifier_reads_examples(file: Path) -> None:
    file.write_text('{"input": "good", "label": "yes"}\n\n{"input": "bad", "label": "no"}\n')
    expected = [Example(input="good", label="yes"), Example(input="bad", label="no")]
    assert read_examples(file) == expected


def test_a_generator_reads_prompts_with_their_completions(file: Path) -> None:
    file.write_text('{"prompt": "One,", "completion": " two"}\n{"prompt": "", "completion": "A"}')
    assert read_passages(file) == [Passage("One,", " two"), Passage("", "A")]


def test_a_generator_reads_plain_text_in_pieces(file: Path) -> None:
    text = file.with_suffix(".txt")
    text.write_text(f"{'a' * 1_000}\n{'b' * 499}\n\n{'c' * 10}\n")
    assert read_passages(text) == [
        Passage("", f"{'a' * 1_000}\n{'b' * 499}"),
        Passage("", f"\n{'c' * 10}"),
    ]


def test_a_task_may_have_no_labels(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.jsonl: a model of this task has no labels"):
        refuse_labels(file)


@pytest.mark.parametrize(
    ("reader", "content", "said"),
    [
        ("examples", "", ": no texts"),
        ("examples", '{"input": "a"}', ": no labels; every line must be"),
        (
            "examples",
            '{"input": "a", "label": "b"}\n{"input": "a"}',
            ": 1 of 2 lines have a label; all or none",
        ),
        (
            "examples",
            '\n{"prompt": "a", "completion": "b"}',
            ": line 2: input: Field required\nprompt: unknown key\ncompletion: unknown key",
        ),
        ("passages", '{"input": "a"}', ": line 1: prompt: Field required"),
        ("passages", '{"prompt": "a", "completion": ""}', ": line 1: completion: String should"),
        ("passages", "plain", ": line 1: not JSON"),
    ],
)
def test_wrong_data_is_refused_with_file_and_line(
    file: Path, reader: str, content: str, said: str
) -> None:
    file.write_text(content)
    assert refusal(file, reader).startswith(f"{file}{said}")


def test_an_empty_text_is_refused(file: Path) -> None:
    text = file.with_suffix(".txt")
    text.write_text(" \n\n")
    assert refusal(text, "passages") == f"{text}: no texts"


@pytest.mark.parametrize(
    ("reader", "name", "line"),
    [
        ("examples", "data.jsonl", '{"input": "a", "label": "b"}'),
        ("passages", "data.jsonl", '{"prompt": "a", "completion": "b"}'),
        ("passages", "data.txt", "a" * (PIECE_CHARACTERS - 1)),
        ("texts", "data.txt", "a"),
    ],
)
def test_data_is_bounded(tmp_path: Path, monkeypatch, reader: str, name: str, line: str) -> None:
    monkeypatch.setattr(dataset, "MAX_EXAMPLES", 3)
    file = tmp_path / name
    read = READERS[reader]
    file.write_text(f"{line}\n" * 3)
    assert len(read(file)) == 3
    file.write_text(f"{line}\n" * 4)
    with pytest.raises(ConfigError, match=f"{name}: 4 texts; at most 3 are read"):
        read(file)


def test_a_file_that_is_too_large_is_not_read(file: Path, monkeypatch) -> None:
    monkeypatch.setattr(json_lines, "MAX_FILE_BYTES", 1024**2)
    with file.open("wb") as opened:
        opened.truncate(1024**2 + 1024**2 // 2)
    assert refusal(file, "passages") == (
        f"{file}: 1.5 MiB; at most 1 MiB are read. Give a sample of it"
    )


def test_any_other_file_holds_one_text_a_line(file: Path) -> None:
    text = file.with_suffix(".txt")
    text.write_text("a\n\nb c\n")
    assert READERS["texts"](text) == [Example("a"), Example("b c")]
    assert ": no labels; every line must be" in refusal(text, "examples")


LINES = st.lists(
    st.text(st.sampled_from("ab \t-"), max_size=30) | st.just("word " * 700) | st.just("x" * 4_000),
    max_size=150,
)


@given(LINES)
def test_pieces_hold_the_whole_text_and_are_as_long_as_they_may(lines: list[str]) -> None:
    pieces = cut_text("\n".join(lines))
    assert all(len(piece) <= PIECE_CHARACTERS for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join("".join(lines).split())


def test_a_long_line_is_cut_between_words() -> None:
    first, second = cut_text("word " * 400)
    assert (len(first), len(second)) == (1_500, 500)
    assert {*first.split(), *second.split()} == {"word"}
