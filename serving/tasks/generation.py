"""Generation: prompts and chats to token ids, and tokens back to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer

from serving.config import DEFAULT_MAX_TOKENS
from serving.errors import InvalidField, TooManyTokens
from serving.seams import Checkpoint, Message, Task, TokenTable, Tool, ToolUse
from serving.tasks.chat import Chat
from serving.tasks.control_tokens import ControlTokens
from serving.tasks.task_files import read_settings, read_tokenizer
from serving.tasks.token_text import StreamedText, Vocabulary
from serving.tasks.tool_calls import CallReader
from serving.tasks.tool_formats import ToolFormat, answer_grammar


class ChatSettings(BaseModel):
    """What encoding a chat needs beside the tokenizer.

    Attributes:
        template: Source of the template.
        variables: Special tokens by the names under which the template knows them.
        control_tokens: Names that are plain text in a message.
        tool_template: Source of the template for chats with tools, if it is another.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    template: str
    variables: dict[str, str]
    control_tokens: tuple[str, ...]
    tool_template: str | None = None


class GenerationSettings(BaseModel):
    """What preparing writes beside the tokenizer.

    Attributes:
        positions: Tokens that the model has positions for; None if its config names no limit.
        stop_tokens: Ids after which it has nothing to add.
        chat: None if it has no template.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    positions: int | None
    stop_tokens: tuple[int, ...]
    chat: ChatSettings | None


@dataclass(frozen=True, slots=True)
class Generation:
    """The task ``generation`` for one checkpoint.

    Nothing of the tokenizer is switched after loading, so one is enough for threads that encode
    while another decodes.

    Attributes:
        tokenizer: Neither pads nor cuts.
        chat: None if the model has no chat template.
        stop_tokens: Ids after which a model has nothing to add.
        max_tokens: Most tokens of prompt and continuation together.
    """

    tokenizer: Tokenizer
    vocabulary: Vocabulary
    chat: Chat | None
    stop_tokens: frozenset[int]
    max_tokens: int

    def encode_prompt(self, prompt: str) -> tuple[int, ...]:
        """Token ids of a text to continue, special tokens added as the tokenizer does.

        The name of a special token in it stands for that token: who sends a prompt writes all of
        it, control tokens included.

        Raises:
            InvalidField: It has no token.
            TooManyTokens: No new token fits.
        """
        return self._checked(self._encode(prompt), "prompt")

    def decode_prompt(self, tokens: Sequence[int]) -> str:
        """Text of a prompt that came as token ids; see ``GenerationTask.decode_prompt``.

        Nothing is added to the ids: who sends them has begun the text with the special tokens that
        the model wants.

        Raises:
            InvalidField: The tokenizer has no such token.
            TooManyTokens: No new token fits.
        """
        for token in tokens:
            if self.tokenizer.id_to_token(token) is None:
                raise InvalidField(
                    f"the model's tokenizer has no token {token}; was it another's?",
                    param="prompt",
                )
        text: str = self.tokenizer.decode(
            self._checked(tokens, "prompt"), skip_special_tokens=False
        )
        return text

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

    def encode_chat(
        self, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> tuple[int, ...]:
        """Token ids of a chat in the tokenizer's template, up to where the answer begins.

        The name of a control token in a message is plain text, so that no message can end its
        turn and speak in another role.

        Raises:
            InvalidField: The model has no template, or the template refuses the messages, or has no
                place for tools, or there are no messages, or so long ones that no new token fits.
        """
        if self.chat is None:
            raise InvalidField(
                "this model has no chat template; send a prompt to /v1/completions instead",
                param="messages",
            )
        if not messages:
            raise InvalidField("an empty conversation; send one message at least", param="messages")
        return self._checked(self.chat.encode(messages, tools), "messages")

    def answer_grammar(
        self, schema: Mapping[str, Any] | None, tool_use: ToolUse | None
    ) -> str | None:
        """The grammar of an answer; see ``GenerationTask.answer_grammar``."""
        if tool_use is None:
            return answer_grammar(None, None, schema, {})
        form = self._tool_format()
        special = {mark: token for token, mark in self._special_marks(form).items()}
        return answer_grammar(form, tool_use, schema, special)

    def open_calls(self, tool_use: ToolUse) -> CallReader:
        """Start to look for calls; see ``GenerationTask.open_calls``."""
        return CallReader(self._tool_format(), tool_use.is_parallel)

    def open_text(self, prompt: Sequence[int], with_calls: bool = False) -> StreamedText:
        """Start the text that follows ``prompt``; see ``GenerationTask.open_text``."""
        shown = self._special_marks(self._tool_format()) if with_calls else {}
        return StreamedText(self.vocabulary, prompt, shown)

    def token_text(self, token: int) -> tuple[str, bytes]:
        """Text of one token alone, and its bytes; special tokens by their name."""
        return self.vocabulary.token_text(token)

    def token_table(self) -> TokenTable:
        """What all tokens say; see ``GenerationTask.token_table``."""
        ids = self.tokenizer.get_vocab(with_added_tokens=True).values()
        raw = [self.vocabulary.token_text(token)[1] for token in range(max(ids) + 1)]
        return TokenTable(raw, self.vocabulary.special, self.stop_tokens)

    def _tool_format(self) -> ToolFormat:
        assert self.chat is not None  # or the chat could not have been encoded
        return self.chat.tool_format()

    def _special_marks(self, form: ToolFormat) -> dict[int, str]:
        """The marks of calls that are special tokens, by their ids."""
        ids = {self.tokenizer.token_to_id(mark): mark for mark in form.marks}
        return {token: mark for token, mark in ids.items() if token in self.vocabulary.special}

    def _encode(self, text: str) -> list[int]:
        (encoding,) = self.tokenizer.encode_batch_fast([text])
        ids: list[int] = encoding.ids
        return ids

    def _checked(self, ids: Sequence[int], field: str) -> tuple[int, ...]:
        if not ids:
            raise InvalidField(f"{field} has no token to continue; send some text", param=field)
        if len(ids) >= self.max_tokens:
            raise TooManyTokens(
                f"{field} has {len(ids)} tokens; the limit is {self.max_tokens} together with at "
                "least one new token, so the prompt is too long. Shorten it",
                param=field,
            )
        return tuple(ids)


def open_task(folder: Path, max_tokens: int | None) -> Generation:
    """Make the task from what ``generation_preparing.prepare`` wrote.

    Args:
        folder: Where.
        max_tokens: Most tokens of prompt and continuation together; ``DEFAULT_MAX_TOKENS`` if
            None. Never more than the model has positions for.

    Raises:
        ConfigError: A file is missing or damaged; names it.
    """
    tokenizer, settings = read_tokenizer(folder), read_settings(folder, GenerationSettings)
    chat = settings.chat
    limits = (max_tokens or DEFAULT_MAX_TOKENS, settings.positions)
    return Generation(
        tokenizer=tokenizer,
        vocabulary=Vocabulary(tokenizer),
        chat=None
        if chat is None
        else Chat(
            chat.template,
            chat.tool_template or chat.template,
            chat.variables,
            ControlTokens(tokenizer, chat.control_tokens),
        ),
        stop_tokens=frozenset(settings.stop_tokens),
        max_tokens=min(limit for limit in limits if limit is not None),
    )


def _prepare(checkpoint: Checkpoint, folder: Path) -> None:
    from serving.tasks.generation_preparing import prepare

    prepare(checkpoint, folder)


def _why_not_comparable(checkpoint: Checkpoint, reference: Checkpoint) -> str | None:
    from serving.tasks.generation_preparing import why_not_comparable

    return why_not_comparable(checkpoint, reference)


def _read_probes(path: Path | None) -> tuple[str, ...]:
    from serving.quality.probes import PROMPTS, read_text_probes

    return read_text_probes(path, PROMPTS)


def _read_labelled(path: Path) -> Sequence[Any]:
    from serving.quality.dataset import read_passages

    return read_passages(path)


TASK = Task(
    kind="generator",
    prepare=_prepare,
    open=open_task,
    read_probes=_read_probes,
    read_labelled=_read_labelled,
    floor=0.7,
    tolerance=0.05,
    why_not_comparable=_why_not_comparable,
)
