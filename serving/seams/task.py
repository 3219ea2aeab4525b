"""Tasks: what stands between a request and an engine's numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from serving.errors import ConfigError
from serving.seams.checkpoint import Checkpoint
from serving.seams.encoder import Arrays
from serving.seams.engine import EngineKind
from serving.seams.generation import Message
from serving.seams.grammar import TokenTable
from serving.seams.head import Head
from serving.seams.inference import NO_OPTIONS, AnswerOptions, Input, Outcome
from serving.seams.tools import Tool, ToolCallDelta, ToolUse


class Item(Protocol):
    """One input, ready for a batch; only its task knows what is in it."""

    @property
    def cost(self) -> int:
        """What it takes of a forward pass: its tokens, at least 1."""


class EncoderTask(Protocol):
    """What an encoder does: inputs to batches before the engine, rows to answers after it.

    Every method may be called by several threads at once.
    """

    head: Head
    max_tokens: int
    width: int
    labels: tuple[str, ...]

    def prepare(
        self, inputs: Sequence[Input], truncate: bool, options: AnswerOptions = NO_OPTIONS
    ) -> list[Item]:
        """Make an item of each input; ``options`` are checked before.

        Raises:
            InvalidField: An input is of the wrong kind, or longer than ``max_tokens`` while
                ``truncate`` is False.
        """

    def collate(self, items: Sequence[Item]) -> Arrays:
        """Make one batch of items, at least one."""

    def check_options(self, options: AnswerOptions) -> None:
        """Raise ``InvalidField`` unless answers can be as ``options`` ask."""

    def decode(
        self, rows: NDArray[np.float32], options: AnswerOptions = NO_OPTIONS
    ) -> NDArray[np.float32]:
        """Turn the engine's rows, one of each input, into answers (inputs, width).

        ``options`` are checked before; with some of them the answers are narrower.
        """


@runtime_checkable
class TakesTokenIds(Protocol):
    """What an ``EncoderTask`` does that also takes inputs as the model's own token ids."""

    def prepare_ids(self, inputs: Sequence[Sequence[int]], truncate: bool) -> list[Item]:
        """Make an item of each input, to which nothing is added.

        Raises:
            InvalidField: The tokenizer has no such token, or an input is longer than ``max_tokens``
                while ``truncate`` is False.
        """


class TextStream(Protocol):
    """Turns the tokens of one sequence into text, piece by piece."""

    def push(self, token: int) -> str:
        """Return the text that is certain now and was not before.

        A character whose bytes are not all there yet is held back.
        """

    def finish(self) -> str:
        """Return what was held back; bytes that are no character become U+FFFD."""


class CallStream(Protocol):
    """Parts an answer into text and calls of tools, piece by piece."""

    num_calls: int
    """Calls that are complete."""
    has_ended: bool
    """Whether nothing more is wanted of the answer."""

    def push(self, text: str) -> Sequence[str | ToolCallDelta]:
        """Take the next piece; return what is certain now and was not before."""

    def finish(self) -> Sequence[str | ToolCallDelta]:
        """Return what was held back, at the end of the answer."""


class GenerationTask(Protocol):
    """What a causal language model does: prompts to token ids, and tokens back to text."""

    stop_tokens: frozenset[int]
    max_tokens: int
    """Most tokens of prompt and continuation together."""

    def encode_prompt(self, prompt: str) -> tuple[int, ...]:
        """Token ids of a text to continue.

        Raises:
            InvalidField: It has no token, or so many that no new one fits.
        """

    def decode_prompt(self, tokens: Sequence[int]) -> str:
        """Text of a prompt that came as token ids, at least one; special tokens by their names.

        Raises:
            InvalidField: The tokenizer has no such token, or no new one fits after so many.
        """

    def encode_continuation(
        self, prompt: str, continuation: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of a text of any length, cut where its prompt ends.

        Both parts are tokenized together, as a model would have read them. What the prompt alone
        has in common with that is the prompt: a token that reaches over the border, or depends on
        what follows, belongs to the continuation, so that none of it goes unscored.
        """

    def encode_chat(
        self, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> tuple[int, ...]:
        """Token ids of a chat in the tokenizer's template, up to where the answer begins.

        Raises:
            InvalidField: The model has no template, or the template refuses the messages, or has no
                place for tools, or all that is so long that no new token fits.
        """

    def answer_grammar(
        self, schema: Mapping[str, Any] | None, tool_use: ToolUse | None
    ) -> str | None:
        """The grammar of an answer in llguidance's Lark; None if it is free.

        Args:
            schema: What an answer follows that is no call.
            tool_use: What ``encode_chat`` told the model of tools.
        """

    def open_calls(self, tool_use: ToolUse) -> CallStream:
        """Start to look for calls of tools in an answer."""

    def open_text(self, prompt: Sequence[int], with_calls: bool = False) -> TextStream:
        """Start the text that follows ``prompt``.

        Special tokens are no part of it; with calls, those are that ``open_calls`` looks for.
        """

    def token_text(self, token: int) -> tuple[str, bytes]:
        """Text of one token alone, and its bytes; special tokens by their name."""

    def token_table(self) -> TokenTable:
        """What all tokens say; of 50,000 that takes some tenths of a second."""


@dataclass(frozen=True, slots=True)
class ProbeRows:
    """What two variants answered to the same probes.

    Attributes:
        rows: The judged variant's answers, (probes, width).
        reference: The reference's, of the same shape.
        leave_out: Index of the probe that is being judged; None for any other input.
    """

    rows: NDArray[np.float32]
    reference: NDArray[np.float32]
    leave_out: int | None = None


@dataclass(frozen=True, slots=True)
class EncoderJudging:
    """How answers of an encoder's task are compared; rows are (width,), as ``decode`` gives them.

    Attributes:
        agreement: How far a variant's row agrees with the reference's, 0 … 1. A row of the variant
            that is NaN or infinite agrees in nothing. Raises ``ValueError`` if the reference's is.
        measures: What else tells them apart, by name, e.g. ``cosine`` or ``divergence`` (nats); see
            ``Comparison.measures``. Raises likewise.
        needs_probes: Whether ``agreement`` looks at the probes; if not, it gets None for them.
        held_to: Which of them, ``agreement`` or the name of a measure that every pair of rows has,
            must reach a variant's ``min_agreement`` when it is prepared.
    """

    agreement: Callable[[NDArray[np.float32], NDArray[np.float32], ProbeRows | None], float]
    measures: Callable[[NDArray[np.float32], NDArray[np.float32]], Mapping[str, float]]
    needs_probes: bool
    held_to: str = "agreement"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor of the Open Inference Protocol.

    Attributes:
        name: As it is sent.
        datatype: ``BYTES`` or ``FP32``.
        shape: -1 for what depends on the request; None stands for the width of the answers.
    """

    name: str
    datatype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Tensors:
    """How a task looks in the Open Inference Protocol.

    Attributes:
        inputs: All of them are needed; each is BYTES with one text per element.
        outputs: In the order in which they are sent.
        to_inputs: Make inputs of the texts of each input tensor, by its name. Raises
            ``InvalidField``.
        to_outputs: Values of each output tensor, by its name.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    to_inputs: Callable[[Mapping[str, Sequence[str]]], tuple[Input, ...]]
    to_outputs: Callable[[Outcome], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Task:
    """What a model does: an entry of the table in ``serving/tasks``.

    Importing an entry imports numpy and ``tokenizers`` and nothing heavier; its functions import
    what they need when they are called.

    Attributes:
        kind: The kind of engine that it runs on.
        prepare: Write what ``open`` needs of a checkpoint (tokenizer, limits, labels, head) to an
            empty folder. It may import torch and transformers: it runs where artifacts are made.
            Raises ``ConfigError`` if the checkpoint does not fit the task.
        open: Make the task from such a folder, with a lower limit for an input's tokens than the
            checkpoint's own (None: no other): an ``EncoderTask`` or a ``GenerationTask``, by
            ``kind``.
        read_probes: Read the fixed inputs that every variant answers once it is up, from a file or
            (None) those of the package. Raises ``ConfigError``.
        read_labelled: Read labelled data from a file: of an encoder ``Example``, of a generator
            ``Passage`` of ``serving.quality.dataset``. Raises ``ConfigError``, as it does where the
            task has no labels to meet.
        floor: Agreement below which a variant fails, unless the configuration says another.
        tolerance: Share of disagreement that does not count as a loss; likewise.
        judging: How answers are compared; needed of an encoder's task. None for a generator, whose
            tokens are scored.
        show: One answer of an outcome, by its index, as the JSON of the task's own route; needed
            likewise.
        tensors: How it looks in the Open Inference Protocol; None if it has no tensors.
        check: Look at a checkpoint's small files and its ``config.json`` (as a mapping) before
            anything of it is loaded, and without torch or transformers. Raises ``ConfigError`` if
            they are not of a model that the task needs, as ``prepare`` would. None if only
            preparing can tell.
        why_not_comparable: Why answers of two checkpoints, a variant's own and the reference's,
            could not be compared; None if they can, as far as their small files tell. It may import
            transformers. Raises ``ConfigError`` if one of the files cannot be read. None for a task
            whose answers always have one form.
    """

    kind: EngineKind
    prepare: Callable[[Checkpoint, Path], None]
    open: Callable[[Path, int | None], Any]
    read_probes: Callable[[Path | None], tuple[Input, ...]]
    read_labelled: Callable[[Path], Sequence[Any]]
    floor: float
    tolerance: float
    judging: Callable[[], EncoderJudging] | None = None
    show: Callable[[Outcome, int], dict[str, Any]] | None = None
    tensors: Tensors | None = None
    check: Callable[[Checkpoint, Mapping[str, Any]], None] | None = None
    why_not_comparable: Callable[[Checkpoint, Checkpoint], str | None] | None = None

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` if something is missing."""
        if self.kind == "encoder" and (self.judging is None or self.show is None):
            raise ConfigError("a task that runs on an encoder needs judging and show")
