"""``POST /v1/rerank``: documents by their relevance to a query, as two kinds of clients ask.

Cohere's and Jina's clients send ``documents`` and cut what is too long unless told otherwise;
text-embeddings-inference's send ``texts``, and have it refused. ``POST /rerank``, as that server
and vLLM have it, and ``POST /v2/rerank``, as Cohere's newer clients have it, are the same route.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from serving.errors import InvalidField
from serving.routes.asking import answer
from serving.routes.choosing import choose
from serving.routes.json_response import json_response
from serving.routes.record import record_of
from serving.routes.schemas import Body, ChoosingBody, Text, Usage, Writable
from serving.seams import Outcome
from serving.tasks import TASKS

TASK = "rerank"

router = APIRouter(tags=["inference"])


class DocumentBody(Body):
    """A document as an object; what else it holds is given back as it came."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Writable] = Field(init=False)
    text: Text


def _as_object(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


Document = Annotated[
    DocumentBody,
    BeforeValidator(_as_object),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "object",
                    "properties": {"text": {"type": "string", "minLength": 1}},
                    "required": ["text"],
                },
            ]
        }
    ),
]
"""A text, or an object with one."""


class RerankBody(ChoosingBody):
    """``POST /v1/rerank``: either with ``documents`` or with ``texts``.

    Attributes:
        query: What the documents shall be relevant to.
        documents: As Cohere's and Jina's clients send them.
        top_n: Most results; all of them if not given.
        return_documents: Put each document into its result.
        rank_fields: Only ``text`` of a document is read.
        max_chunks_per_doc: A document is read in one piece.
        priority: Accepted since Cohere's clients send it; no answer depends on it.
        return_embeddings: A cross-encoder has none to give.
        texts: As the clients of text-embeddings-inference send them; the three fields after it go
            with it.
        return_text: Put each text into its result.
        raw_scores: The scores before the activation function are not known here.
        truncation_direction: The end is cut.
        truncate: Cut what is too long instead of refusing it; with ``documents`` it is cut unless
            this is false.
    """

    query: Text
    documents: Annotated[list[Document], Field(min_length=1)] | None = None
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = False
    rank_fields: list[Literal["text"]] | None = None
    max_chunks_per_doc: Literal[1] | None = None
    priority: int | None = None
    return_embeddings: Literal[False] = False
    texts: Annotated[list[Text], Field(min_length=1)] | None = None
    return_text: bool = False
    raw_scores: Literal[False] = False
    truncation_direction: Literal["Right", "right"] = "Right"
    truncate: bool | None = None

    def check(self) -> None:
        """Raise ``InvalidField`` unless the fields are those of one kind of client."""
        if (self.documents is None) == (self.texts is None):
            raise InvalidField("documents: send either documents or texts", param="documents")
        of_texts = {"return_text", "raw_scores", "truncation_direction"}
        of_documents = {"top_n", "return_documents", "rank_fields", "max_chunks_per_doc"}
        kind, others = ("documents", of_texts) if self.texts is None else ("texts", of_documents)
        if strangers := sorted(others & self.model_fields_set):
            raise InvalidField(
                f"{', '.join(strangers)}: unknown field where {kind} are sent", param=strangers[0]
            )

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The inputs of the model."""
        texts = self.texts or [document.text for document in self.documents or []]
        return tuple((self.query, text) for text in texts)


class RerankResult(Body):
    """One document, with its place in the request."""

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class RerankAnswer(Body):
    """Answer where documents were sent, the most relevant first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: Usage


class TextRank(Body):
    """One text, with its place in the request; the answer where texts were sent is their list."""

    index: int
    score: float
    text: str | None = None


@router.post("/v1/rerank", response_model=RerankAnswer | list[TextRank])
@router.post("/rerank", response_model=RerankAnswer | list[TextRank])
@router.post("/v2/rerank", response_model=RerankAnswer | list[TextRank])
async def rerank(request: Request, body: RerankBody) -> Response:
    """The documents, the most relevant first."""
    body.check()
    model, variant = await choose(request, body.models, body.variants, body.slo, task=TASK)
    truncate = body.texts is None if body.truncate is None else body.truncate
    field = "documents" if body.texts is None else "texts"
    outcome = await answer(request, model, variant, body.pairs, truncate=truncate, field=field)
    if body.texts is not None:
        return json_response(_ranks(body, outcome))
    return json_response(
        {
            "id": record_of(request).request_id,
            "model": f"{model.name}:{variant}",
            "results": _results(body, outcome),
            "usage": {"prompt_tokens": outcome.tokens, "total_tokens": outcome.tokens},
        }
    )


def _results(body: RerankBody, outcome: Outcome) -> list[dict[str, Any]]:
    documents, show = body.documents or [], TASKS[TASK].show
    assert show is not None  # as of every encoder's task
    results = []
    for index in _most_relevant_first(outcome)[: body.top_n]:
        result = {"index": index, **show(outcome, index)}
        if body.return_documents:
            # Other than orjson, pydantic writes integers of any size.
            result["document"] = orjson.Fragment(documents[index].model_dump_json())
        results.append(result)
    return results


def _ranks(body: RerankBody, outcome: Outcome) -> list[dict[str, Any]]:
    texts = body.texts or []
    ranks = []
    for index in _most_relevant_first(outcome):
        rank: dict[str, Any] = {"index": index, "score": float(outcome.rows[index, 0])}
        if body.return_text:
            rank["text"] = texts[index]
        ranks.append(rank)
    return ranks


def _most_relevant_first(outcome: Outcome) -> list[int]:
    """Indices of the documents; of equally relevant ones the first."""
    order: list[int] = np.argsort(-outcome.rows[:, 0], kind="stable").tolist()
    return order
