"""Texts and pairs of texts as items: token ids within a limit, and the arrays of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from tokenizers import Encoding, Tokenizer

from serving.errors import InvalidField, TooManyTokens
from serving.seams import AnswerOptions, Arrays, Input, Item

LENGTH_MULTIPLE = 8
"""Rows are padded to a multiple of this many tokens.

oneDNN prepares, and keeps, kernels for every number of tokens in a batch that it meets, and
malloc's heap frays with them: without this the memory of a replica grows by hundreds of MB under
traffic of every length (``benchmarks/batch_shapes.py``).
"""


class TextSettings(BaseModel):
    """What a model wants of its tokens beside the tokenizer.

    Attributes:
        max_tokens: Most tokens of an input, special ones included; None if the checkpoint knows
            no limit.
        pad_id: Token that fills a row. Some models find the last token, or their positions, by it.
        pad_type_id: Its token type.
        takes_type_ids: Whether batches have ``token_type_ids``.
        truncation_side: Where an over-long text is cut.
        splits_special_tokens: Whether a special token's name in a text is plain text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_tokens: int | None
    pad_id: int
    pad_type_id: int
    takes_type_ids: bool
    truncation_side: Literal["left", "right"]
    splits_special_tokens: bool


@dataclass(frozen=True, slots=True)
class TextItem:
    """Tokens of one input, special ones included, with their types."""

    ids: Sequence[int]
    type_ids: Sequence[int]

    @property
    def cost(self) -> int:
        """Its tokens."""
        return len(self.ids)


class TextItems:
    """Makes items of texts, and batches of items.

    Two tokenizers are kept, one that truncates and one that does not, because switching the
    setting of one is not safe while another thread encodes.

    Args:
        tokenizer: Adds the special tokens; its own padding and truncation are dropped.
        settings: Of the model.
        max_tokens: The limit that applies, at most the model's own.
    """

    def __init__(self, tokenizer: Tokenizer, settings: TextSettings, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._settings = settings
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._whole = tokenizer
        self._truncating = Tokenizer.from_str(tokenizer.to_str())
        self._truncating.enable_truncation(max_tokens, direction=settings.truncation_side)
        for each in (self._whole, self._truncating):
            each.encode_special_tokens = settings.splits_special_tokens

    def encode(self, inputs: Sequence[Input], truncate: bool) -> list[Item]:
        """Make an item of each input; the two texts of a pair are tokenized as a pair.

        Of a pair that is too long, the longer text is cut first.

        Raises:
            InvalidField: An input has no token, or is longer than the limit while ``truncate`` is
                False.
        """
        tokenizer = self._truncating if truncate else self._whole
        encodings = tokenizer.encode_batch_fast(list(inputs))
        for index, encoding in enumerate(encodings):
            self._check_length(index, len(encoding))
        return [_item(encoding) for encoding in encodings]

    def take_ids(self, inputs: Sequence[Sequence[int]], truncate: bool) -> list[Item]:
        """Make an item of each input's token ids, to which nothing is added.

        Raises:
            InvalidField: The tokenizer has no such token, or an input is longer than the limit
                while ``truncate`` is False.
        """
        items: list[Item] = []
        for index, ids in enumerate(inputs):
            for token in ids:
                if self._whole.id_to_token(token) is None:
                    raise InvalidField(
                        f"input[{index}]: the model's tokenizer has no token {token}; was it "
                        "another's?",
                        param="input",
                    )
            kept = self._cut(ids) if truncate else ids
            self._check_length(index, len(kept))
            items.append(TextItem(kept, [0] * len(kept)))
        return items

    def collate(self, items: Sequence[Item]) -> Arrays:
        """Stack items into int64 arrays (items, tokens), padded on the right.

        No row is padded past the limit.
        """
        texts = cast(Sequence[TextItem], items)
        longest = max(item.cost for item in texts)
        width = min(-(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, self.max_tokens)
        arrays = {
            "input_ids": _padded([item.ids for item in texts], width, self._settings.pad_id),
            "attention_mask": _padded([[1] * item.cost for item in texts], width, 0),
        }
        if self._settings.takes_type_ids:
            arrays["token_type_ids"] = _padded(
                [item.type_ids for item in texts], width, self._settings.pad_type_id
            )
        return arrays

    def _cut(self, ids: Sequence[int]) -> Sequence[int]:
        is_left = self._settings.truncation_side == "left"
        return ids[-self.max_tokens :] if is_left else ids[: self.max_tokens]

    def _check_length(self, index: int, num_tokens: int) -> None:
        if num_tokens == 0:
            raise InvalidField(f"input[{index}] has no token for this model", param="input")
        if num_tokens > self.max_tokens:
            raise TooManyTokens(
                f"input[{index}] has {num_tokens} tokens; the limit is {self.max_tokens}. "
                "Shorten it, or send truncate: true to have it cut",
                param="input",
            )


def only_texts(inputs: Sequence[Input]) -> list[str]:
    """The inputs of a task on single texts.

    Raises:
        InvalidField: One is a pair.
    """
    texts = [text for text in inputs if isinstance(text, str)]
    if len(texts) < len(inputs):
        raise InvalidField("this model takes single texts, no pairs", param="input")
    return texts


def refuse_options(options: AnswerOptions) -> None:
    """Raise ``InvalidField`` if there are any: for a task whose answers are no embeddings."""
    for name, value in asdict(options).items():
        if value is not None:
            raise InvalidField(f"{name} belongs to embeddings", param=name)


def _item(encoding: Encoding) -> TextItem:
    return TextItem(encoding.ids, encoding.type_ids)


def _padded(rows: Sequence[Sequence[int]], width: int, filler: int) -> NDArray[np.int64]:
    array = np.full((len(rows), width), filler, np.int64)
    for row, values in zip(array, rows, strict=True):
        row[: len(values)] = values
    return array
