"""A tokenizer.json that somebody made to do harm is read, or refused with the folder's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace

from serving.errors import ConfigError
from serving.seams import Checkpoint
from serving.tasks.generation import TASK


def good() -> dict[str, Any]:
    tokenizer = Tokenizer(WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = Whitespace(), WordPieceDecoder()
    tokenizer.add_special_tokens(["<s>"])
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


def places(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to everything inside a JSON value."""
    inner: list[tuple[Any, Any]] = list(value.items()) if isinstance(value, dict) else []
    inner += enumerate(value) if isinstance(value, list) else ()
    return [p for key, one in inner for p in [(*before, key), *places(one, (*before, key))]]


GOOD = good()
VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, -1, 2**32, 2**64, 1e308, "", "\0", [], {}, True, "a" * 1_000, [[]]]
)


def changed(changes: list[tuple[tuple[Any, ...], Any]]) -> str:
    content = json.loads(json.dumps(GOOD))
    for (*path, last), value in changes:
        parent = content
        for key in path:
            parent = parent[key] if isinstance(parent, dict | list) and key in keys(parent) else {}
        if isinstance(parent, dict) or (isinstance(parent, list) and last in keys(parent)):
            parent[last] = value
    return json.dumps(content)


def keys(parent: Any) -> Any:
    return range(len(parent)) if isinstance(parent, list) else parent


@given(st.lists(st.tuples(st.sampled_from(places(GOOD)), VALUES), max_size=2).map(changed))
@example("[" * 100_000)
@example('{"model": ' * 10_000)
@example("")
@example(changed([(("model", "continuing_subword_prefix"), "a" * 1_000)]))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_tokenizer_is_read_or_refused(tmp_path: Path, raw: str) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 16}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (folder / "tokenizer.json").write_text(raw)
    prepared = tmp_path / "task"
    prepared.mkdir(exist_ok=True)
    try:
        TASK.prepare(Checkpoint(folder), prepared)
    except ConfigError as error:
        reason = str(error)
    else:
        return
    assert str(folder) in reason


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 16}')
    (tmp_path / "tokenizer.json").write_text(json.dumps(GOOD))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": 5}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    prepared = tmp_path / "task"
    prepared.mkdir()
    with pytest.raises(ConfigError, match="chat_template"):
        TASK.prepare(Checkpoint(tmp_path), prepared)
