"""Generation: prompts and chats to token ids, and tokens back to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, cast

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from serving.config import DEFAULT_MAX_TOKENS
from serving.errors import ConfigError, InvalidField
from serving.seams import Checkpoint, Message
from serving.tasks.text_encoder import load_model_config, read_json, source_arguments
from serving.tasks.token_text import StreamedText, Vocabulary

_REFUSAL_CHARACTERS = 300
"""Most of a template's own words that are repeated; they may quote the messages."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The task ``generation`` for one checkpoint.

    Nothing of the tokenizer is switched after loading, neither here nor by transformers while it
    neither pads nor cuts: so one is enough for threads that encode while another decodes.
    """

    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    stop_tokens: frozenset[int]
    max_tokens: int

    def encode_prompt(self, prompt: str) -> tuple[int, ...]:
        """Token ids of a text to continue, special tokens added as the tokenizer does.

        The name of a special token in it stands for that token: who sends a prompt writes all of
        it, control tokens included.

        Raises:
            InvalidField: It has no token, or so many that no new one fits.
        """
        return self._checked(self._encode(prompt), "prompt")

    def encode_continuation(
        self, prompt: str, continuation: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of a text in two parts; see ``GenerationTask.encode_continuation``."""
        alone, both = self._encode(prompt) if prompt else [], self._encode(prompt + continuation)
        shared = zip(alone, both, strict=False)
        num_shared = next(
            (i for i, (a, b) in enumerate(shared) if a != b), min(len(alone), len(both))
        )
        return tuple(both[:num_shared]), tuple(both[num_shared:])

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of a chat in the tokenizer's template, up to where the answer begins.

        The name of a control token in a message is plain text, so that no message can end its
        turn and speak in another role.

        Raises:
            InvalidField: The model has no template, or the template refuses the messages, or they
                are so long that no new token fits.
        """
        if self.tokenizer.chat_template is None:
            raise InvalidField(
                "this model has no chat template; send a prompt to /v1/completions instead",
                param="messages",
            )
        chat = [{"role": message.role, "content": message.content} for message in messages]
        try:
            ids = self.tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
            )
        except (TemplateError, TypeError, ValueError) as error:
            reason = shorten(str(error), _REFUSAL_CHARACTERS, placeholder=" …")
            raise InvalidField(
                f"the model's chat template refuses messages: {reason}", param="messages"
            ) from error
        return self._checked(cast(list[int], ids), "messages")

    def open_text(self, prompt: Sequence[int]) -> StreamedText:
        """Start the text that follows ``prompt``."""
        return StreamedText(self.vocabulary, prompt)

    def token_text(self, token: int) -> tuple[str, bytes]:
        """Text of one token alone, and its bytes; special tokens by their name."""
        return self.vocabulary.token_text(token)

    def _encode(self, text: str) -> list[int]:
        (encoding,) = self.tokenizer.backend_tokenizer.encode_batch_fast([text])
        ids: list[int] = encoding.ids
        return ids

    def _checked(self, ids: Sequence[int], field: str) -> tuple[int, ...]:
        if not ids:
            raise InvalidField(f"{field} has no token to continue; send some text", param=field)
        if len(ids) >= self.max_tokens:
            raise InvalidField(
                f"{field} has {len(ids)} tokens; the limit is {self.max_tokens} together with at "
                "least one new token. Shorten it",
                param=field,
            )
        return tuple(ids)


def load(checkpoint: Checkpoint, max_tokens: int | None) -> Generation:
    """Load the task for a checkpoint.

    Args:
        checkpoint: Where tokenizer and config lie.
        max_tokens: Most tokens of prompt and continuation together; ``DEFAULT_MAX_TOKENS`` if
            None, and never more than the model has positions.

    Raises:
        ConfigError: No fast tokenizer can be made.
    """
    tokenizer = _load_tokenizer(checkpoint)
    config = load_model_config(checkpoint)
    vocabulary = Vocabulary(tokenizer.backend_tokenizer)
    limits = (max_tokens or DEFAULT_MAX_TOKENS, getattr(config, "max_position_embeddings", None))
    return Generation(
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        stop_tokens=_stop_tokens(checkpoint, config, tokenizer, vocabulary),
        max_tokens=min(limit for limit in limits if limit is not None),
    )


def _load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerFast:
    # For a GGUF file, AutoTokenizer first reads its whole header for a config (3 s for a vocabulary
    # of 49,152), and then builds the same tokenizer from the file alone.
    loader: Any = AutoTokenizer if checkpoint.gguf_file is None else PreTrainedTokenizerFast
    tokenizer = loader.from_pretrained(checkpoint.folder, **source_arguments(checkpoint))
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConfigError(f"{checkpoint.folder}: no fast tokenizer (tokenizer.json) can be made")
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def _stop_tokens(
    checkpoint: Checkpoint,
    config: Any,
    tokenizer: PreTrainedTokenizerFast,
    vocabulary: Vocabulary,
) -> frozenset[int]:
    """Every token after which the model has nothing to add.

    Generation config (as in transformers, the model's config stands in for a missing one),
    tokenizer and chat template each know some: base models end with one token, chats with another.
    """
    configured = read_json(checkpoint, "generation_config.json").get("eos_token_id")
    if configured is None:
        configured = getattr(config, "eos_token_id", None)
    found = [
        *(configured if isinstance(configured, list) else [configured]),
        tokenizer.eos_token_id,
        _end_of_turn(tokenizer, vocabulary),
    ]
    return frozenset(token for token in found if token is not None)


def _end_of_turn(tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> int | None:
    """The control token that the chat template puts right after an answer, if it does."""
    if tokenizer.chat_template is None:
        return None
    answer = "ANSWER"
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}]
    try:
        text = cast(str, tokenizer.apply_chat_template(chat, tokenize=False))
    except (TemplateError, TypeError, ValueError):  # then no chat will be answered either
        return None
    _, _, after = text.rpartition(answer)
    ids = tokenizer.backend_tokenizer.encode(after.lstrip(), add_special_tokens=False).ids
    return ids[0] if ids and not vocabulary.is_text(ids[0]) else None
