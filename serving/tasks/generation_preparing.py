"""What the task ``generation`` needs of a checkpoint, found with transformers and written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from serving.errors import ConfigError
from serving.rust_panics import panics_as_errors
from serving.seams import Checkpoint
from serving.tasks.bounded_rendering import render_bounded
from serving.tasks.chat_template import literal_text
from serving.tasks.checkpoint_files import load_model_config, read_json, source_arguments
from serving.tasks.control_tokens import find_control_tokens
from serving.tasks.generation import ChatSettings, GenerationSettings
from serving.tasks.task_files import write_task
from serving.tasks.token_text import Vocabulary


def prepare(checkpoint: Checkpoint, folder: Path) -> None:
    """Write tokenizer, limits, stop tokens and chat template of a checkpoint to an empty folder.

    Raises:
        ConfigError: There is no fast tokenizer, or it cannot be written.
    """
    loaded = _load_tokenizer(checkpoint)
    tokenizer: Tokenizer = loaded.backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    config = load_model_config(checkpoint)
    chat = _chat_settings(loaded, tokenizer)
    settings = GenerationSettings(
        positions=getattr(config, "max_position_embeddings", None),
        stop_tokens=_stop_tokens(checkpoint, config, loaded.eos_token_id, tokenizer, chat),
        chat=chat,
    )
    write_task(folder, tokenizer, settings)


def why_not_comparable(checkpoint: Checkpoint, reference: Checkpoint) -> str | None:
    """See ``Task.why_not_comparable``: the reference scores tokens by their ids.

    A few more ids at the end, for padding above all, are no hindrance: no text holds them.
    """
    tokens, expected = (
        {number: token for token, number in _load_tokenizer(found).get_vocab().items()}
        for found in (checkpoint, reference)
    )
    for number in sorted(tokens.keys() & expected.keys()):
        if tokens[number] != expected[number]:
            return (
                f"a vocabulary whose token {number} is {tokens[number]!r}; the reference's is "
                f"{expected[number]!r}"
            )
    return None


def _load_tokenizer(checkpoint: Checkpoint) -> Any:
    # For a GGUF file, AutoTokenizer first reads its whole header for a config (3 s for a vocabulary
    # of 49,152), and then builds the same tokenizer from the file alone.
    loader: Any = AutoTokenizer if checkpoint.gguf_file is None else PreTrainedTokenizerFast
    try:
        with panics_as_errors():
            tokenizer = loader.from_pretrained(checkpoint.folder, **source_arguments(checkpoint))
    except Exception as error:  # whatever the files lead transformers to
        raise ConfigError(f"{checkpoint.folder}: its tokenizer cannot be read: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConfigError(f"{checkpoint.folder}: no fast tokenizer (tokenizer.json) can be made")
    return tokenizer


def _chat_settings(loaded: Any, tokenizer: Tokenizer) -> ChatSettings | None:
    """Find the templates that chats use, without and with tools, and what they need."""
    template: Any = loaded.chat_template
    tool_template: str | None = None
    if isinstance(template, dict):  # several, by what they are for
        template, tool_template = template.get("default"), template.get("tool_use")
    if template is None:
        return None
    if not isinstance(template, str) or not isinstance(tool_template, str | None):
        raise ConfigError("the tokenizer's chat_template is no text, nor texts by their names")
    try:
        written = literal_text(template) + literal_text(tool_template or "")
    except (TemplateError, RecursionError):  # each chat will be told
        written = ""
    return ChatSettings(
        template=template,
        tool_template=tool_template,
        variables=loaded.special_tokens_map,
        control_tokens=tuple(
            find_control_tokens(tokenizer, written, loaded.chat_control_tokens or ())
        ),
    )


def _stop_tokens(
    checkpoint: Checkpoint,
    config: Any,
    eos_token: int | None,
    tokenizer: Tokenizer,
    chat: ChatSettings | None,
) -> tuple[int, ...]:
    """Every token after which the model has nothing to add.

    Generation config (as in transformers, the model's config stands in for a missing one),
    tokenizer and chat template each know some: base models end with one token, chats with another.
    """
    said = read_json(checkpoint, "generation_config.json")
    configured = said.get("eos_token_id") if isinstance(said, dict) else None
    if configured is None:
        configured = getattr(config, "eos_token_id", None)
    found = {
        *(configured if isinstance(configured, list) else [configured]),
        eos_token,
        None if chat is None else _end_of_turn(chat, tokenizer),
    }
    return tuple(sorted(found - {None}))


def _end_of_turn(chat: ChatSettings, tokenizer: Tokenizer) -> int | None:
    """The control token that the chat template puts right after an answer, if it does."""
    answer = "ANSWER"
    messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}]
    try:
        text = render_bounded(chat.template, chat.variables, messages, asks_for_answer=False)
    except TemplateError:  # then no chat will be answered either
        return None
    _, _, after = text.rpartition(answer)
    ids = tokenizer.encode(after.lstrip(), add_special_tokens=False).ids
    return ids[0] if ids and not Vocabulary(tokenizer).is_text(ids[0]) else None
