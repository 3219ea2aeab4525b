"""Bodies of the OpenAI routes. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)
from pydantic_core import PydanticSerializationError, to_json

from serving.routes.selection import Choice
from serving.seams import AnswerOptions

MAX_BYTES = 2**63 - 1
"""More is no size, and beyond all floats it could not even be written in an error."""

Text = Annotated[str, StringConstraints(min_length=1)]


def check_writable(value: Any) -> Any:
    """Return a JSON value whose texts all have UTF-8.

    Raises:
        ValueError: One has not: JSON's escapes can write half of a character.
    """
    try:
        to_json(value)
    except PydanticSerializationError:
        raise ValueError("a text in it has half of a character (a lone surrogate)") from None
    return value


Writable = Annotated[Any, AfterValidator(check_writable)]
"""A client's own JSON value, to be given back."""

JsonObject = Annotated[dict[str, Any], AfterValidator(check_writable)]
"""A client's own object, to be given to a model."""


def _refuse_token_ids(value: object) -> object:
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, int) or (isinstance(first, list) and first):
        raise ValueError(
            "token ids are not accepted, since another tokenizer's ids would silently give "
            "wrong answers; send text"
        )
    return value


Texts = Annotated[
    Text | Annotated[list[Text], Field(min_length=1)], BeforeValidator(_refuse_token_ids)
]
"""One text or several."""


TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]


def _kind_of_inputs(given: object) -> str:
    """What was meant, by the first item, so that errors speak of that."""
    first = given[0] if isinstance(given, list) and given else None
    if isinstance(first, list):
        return "lists of token ids"
    if isinstance(first, int) and not isinstance(first, bool):
        return "token ids"
    return "some texts" if isinstance(given, list) else "a text"


# No tag is an identifier, or the places that errors name would have it.
Inputs = Annotated[
    Annotated[Text, Tag("a text")]
    | Annotated[list[Text], Field(min_length=1), Tag("some texts")]
    | Annotated[TokenIds, Tag("token ids")]
    | Annotated[list[TokenIds], Field(min_length=1), Tag("lists of token ids")],
    Discriminator(_kind_of_inputs),
]
"""One text or several, or token ids likewise."""


class Body(BaseModel):
    """A JSON object of a request or of an answer; in a request, ``null`` leaves a field out.

    That holds for unknown fields too: clients send nulls for all that they were not given. No value
    is taken for one of another type: ``true`` is no 1, and ``"1"`` is none either.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        keeps_others = cls.model_config.get("extra") == "allow"
        return {
            k: v
            for k, v in data.items()
            if v is not None or (keeps_others and k not in cls.model_fields)
        }


class Slo(Body):
    """Limits for the variant ``auto``; none is needed.

    Attributes:
        max_latency_ms: Most milliseconds until the answer, or the end of a generated text.
        min_quality: Least agreement with the reference that is certain.
        max_weights_bytes: Largest packed size of the weights.
    """

    max_latency_ms: float | None = Field(default=None, ge=0.001, allow_inf_nan=False)
    min_quality: float | None = Field(default=None, ge=0, le=1)
    max_weights_bytes: int | None = Field(default=None, gt=0, le=MAX_BYTES)


class ChoosingBody(Body):
    """The fields that every inference route has.

    Attributes:
        model: Public name, with an optional variant suffix; not needed where the path names it.
        variant: Choice of the variant; ``auto`` leaves it to the service.
        slo: Limits for ``auto``; headers X-Max-Latency-Ms, X-Min-Quality and X-Max-Weights-Bytes
            state the same.
        user: Accepted since OpenAI's clients send it; no answer depends on it. Likewise the fields
            after it.
    """

    model: str | None = Field(default=None, examples=["minilm:int4"])
    variant: str | None = None
    slo: Slo | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    safety_identifier: str | None = None

    @property
    def models(self) -> list[Choice]:
        """Where the body names a model."""
        return [] if self.model is None else [Choice("body field model", self.model)]

    @property
    def variants(self) -> list[Choice]:
        """Where the body names a variant, the suffix of ``model`` left out."""
        return [] if self.variant is None else [Choice("body field variant", self.variant)]


class InferenceBody(ChoosingBody):
    """The fields of a route that answers each text with one row.

    Attributes:
        input: One text or several.
        truncate: Cut over-long texts instead of refusing them.
    """

    input: Texts
    truncate: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """The inputs, always several."""
        return as_tuple(self.input)


def as_tuple(texts: str | list[str]) -> tuple[str, ...]:
    """One text or several as several."""
    return (texts,) if isinstance(texts, str) else tuple(texts)


class EmbeddingOptions(Body):
    """What a body may ask of embeddings; see ``AnswerOptions``.

    Attributes:
        dimensions: Leading numbers to keep.
        prompt_name: Name of one of the checkpoint's prompts.
        normalize: Whether vectors have length 1, whatever the checkpoint says.
    """

    dimensions: int | None = Field(default=None, ge=1)
    prompt_name: Text | None = None
    normalize: bool | None = None

    @property
    def options(self) -> AnswerOptions:
        """Them all."""
        return AnswerOptions(self.dimensions, self.prompt_name, self.normalize)


class EmbeddingsBody(EmbeddingOptions, InferenceBody):
    """``POST /v1/embeddings``.

    Attributes:
        input: One text or several; or the model's own token ids, one list or several, to which
            nothing is added, no special token either.
    """

    input: Inputs  # type: ignore[assignment]
    encoding_format: Literal["float", "base64"] = "float"

    @property
    def texts(self) -> tuple[str, ...]:
        """The inputs, always several; none if they are token ids."""
        given = [self.input] if isinstance(self.input, str) else self.input
        return tuple(one for one in given if isinstance(one, str))

    @property
    def token_ids(self) -> tuple[tuple[int, ...], ...]:
        """The inputs as token ids; none if they are texts."""
        given = self.input
        if isinstance(given, str) or isinstance(given[0], str):
            return ()
        several = [given] if isinstance(given[0], int) else given
        return tuple(tuple(ids) for ids in several)


class ClassifyBody(InferenceBody):
    """``POST /v1/classify``."""


class Usage(Body):
    """Tokens of the request, special tokens included."""

    prompt_tokens: int
    total_tokens: int


class Embedding(Body):
    """One vector; base64 holds little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsAnswer(Body):
    """Answer of ``POST /v1/embeddings``; ``model`` names the variant that answered."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ClassifiedText(Body):
    """The most probable label, its probability, and the probability of every label."""

    index: int
    label: str
    score: float
    scores: dict[str, float]


class ClassifyAnswer(Body):
    """Answer of ``POST /v1/classify``; ``model`` names the variant that answered."""

    object: Literal["list"]
    data: list[ClassifiedText]
    model: str
    usage: Usage
