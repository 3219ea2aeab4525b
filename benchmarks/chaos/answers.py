"""What each variant answers while nothing is wrong, and whether another answer is the same."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

TIMEOUT_S = 60

SAME = 3e-3
"""Greatest difference between two numbers of a unit vector that count as the same. In other company
int4 differs by up to 1.3e-3, fp32 and int8 by 1e-7; two variants differ by 9e-3 and more."""

TEXTS = tuple(
    f"{beginning} {rest}"
    for rest in [
        "The delivery took three weeks, and nobody answered my letters. When the box came, one "
        "corner was wet, the manual was in a language that I cannot name, and of the two screws "
        "that hold the handle there was one. I wrote again, and this time somebody called me "
        "within the hour, listened to all of it, and sent a new one the same day, with a note by "
        "hand. Which of the two companies is it that I should tell my friends about?"
    ]
    for beginning in ("A kettle.", "Which lamp was it?", "It rains again,", "Dear neighbours:")
)
"""Of some hundred tokens each, so that a pass is what takes a request's time."""

PROMPTS = ("The capital of France is", "Once upon a time there was a")
MAX_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of one variant.

    Attributes:
        model: Of the variant.
        variant: Its name.
        route: Without the prefix of the direct path.
        given: An input.
    """

    model: str
    variant: str
    route: str
    given: str

    @property
    def name(self) -> str:
        """Of the variant, as a request's ``model`` may name it."""
        return f"{self.model}:{self.variant}"

    def body(self, *, names_variant: bool) -> bytes:
        """The JSON of the request.

        Args:
            names_variant: Whether the body says which variant is meant, or the path does.
        """
        named: dict[str, Any] = {"model": self.name} if names_variant else {}
        if self.route == "/v1/embeddings":
            return json.dumps({**named, "input": self.given}).encode()
        greedy = {"prompt": self.given, "max_tokens": MAX_TOKENS, "temperature": 0}
        return json.dumps({**named, **greedy}).encode()


Answer = NDArray[np.float64] | str
"""The numbers of an embedding, or the generated text."""


def questions(variants: Mapping[tuple[str, str], str]) -> list[Question]:
    """Everything that is asked.

    Args:
        variants: Tasks by model and variant.
    """
    return [
        Question(model, variant, route, given)
        for (model, variant), task in variants.items()
        for route, inputs in [
            ("/v1/embeddings", TEXTS) if task == "embeddings" else ("/v1/completions", PROMPTS)
        ]
        for given in inputs
    ]


def read_answer(route: str, content: bytes) -> Answer:
    """What an answer says.

    Raises:
        ValueError: It has another form, or numbers that are none.
    """
    try:
        said = json.loads(content)
        if route == "/v1/completions":
            return str(said["choices"][0]["text"])
        row = np.asarray(said["data"][0]["embedding"], np.float64)
    except (LookupError, TypeError) as error:
        raise ValueError(f"an answer of another form: {content[:200]!r}") from error
    if not np.isfinite(row).all():
        raise ValueError("numbers that are none")
    return row


def difference(ours: Answer, theirs: Answer) -> float:
    """Greatest difference between two numbers; infinite between two texts that differ."""
    if isinstance(ours, str) and isinstance(theirs, str):
        return 0.0 if ours == theirs else math.inf
    if isinstance(ours, str) or isinstance(theirs, str):
        return math.inf
    return float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else math.inf


def is_same(ours: Answer, theirs: Answer) -> bool:
    """Whether two answers are one variant's to the same input."""
    return difference(ours, theirs) <= SAME


Known = Mapping[Question, Answer]


def ask_known(url: str, wanted: list[Question]) -> Known:
    """Ask everything once, of a service that has nothing else to do.

    Raises:
        RuntimeError: Something is not answered, both paths answer differently, or two variants
            cannot be told apart by their answers: then no wrong answer could be seen.
    """
    known: dict[Question, Answer] = {}
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as http:
        for one in wanted:
            direct = _asked(http, one, f"/{one.model}/{one.variant}", names_variant=False)
            selected = _asked(http, one, "", names_variant=True)
            if not is_same(direct, selected):
                raise RuntimeError(f"{one.name} answers differently on both paths: {one.given!r}")
            known[one] = direct
    require_distinct(known)
    return known


def require_distinct(known: Known) -> None:
    """Raise ``RuntimeError`` if two variants of a model answer the same to some input."""
    for first, second in combinations(known, 2):
        is_rival = first.model == second.model and first.variant != second.variant
        if is_rival and first.given == second.given and is_same(known[first], known[second]):
            raise RuntimeError(f"{first.name} and {second.name} cannot be told apart")


def _asked(http: httpx.Client, one: Question, prefix: str, *, names_variant: bool) -> Answer:
    answer = http.post(
        prefix + one.route,
        content=one.body(names_variant=names_variant),
        headers={"Content-Type": "application/json"},
    )
    if answer.status_code != 200:
        raise RuntimeError(f"{one.name}: {answer.status_code} {answer.text[:200]}")
    return read_answer(one.route, answer.content)
