"""The film-review sentences behind the sentiment demo, their labels and their split.

A sentence whose mean human rating is above 0.5 is positive, one below -0.5 is negative; the rest
are left out. The split hashes the text and not the id, so that a sentence which occurs twice lies
on one side only: SHA-256 of its UTF-8 bytes, modulo 100, below 20 is test. Of the 10,605 sentences
that gives 8,082 for training and 1,961 for the test.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

Label = Literal["negative", "positive"]
LABELS: tuple[Label, Label] = ("negative", "positive")
"""In the order of the classifier's outputs."""

REVIEWS_FILE = Path(__file__).with_name("movie_reviews.tsv")
TEST_FILE = Path(__file__).with_name("reviews_test.jsonl")

_RATING_THRESHOLD = 0.5
_TEST_PERCENT = 20
_MIN_PASSAGE_WORDS = 10


@dataclass(frozen=True, slots=True)
class Review:
    """One sentence of a film review.

    Attributes:
        rating: Mean of the human ratings, from -4 (very negative) to 4 (very positive).
        text: The sentence.
    """

    rating: float
    text: str

    @property
    def label(self) -> Label | None:
        """What the rating says; None if it is too close to neutral."""
        if self.rating > _RATING_THRESHOLD:
            return "positive"
        if self.rating < -_RATING_THRESHOLD:
            return "negative"
        return None

    @property
    def is_test(self) -> bool:
        """Whether the sentence is held out from training."""
        return int(hashlib.sha256(self.text.encode()).hexdigest(), 16) % 100 < _TEST_PERCENT


def read_reviews(file: Path = REVIEWS_FILE) -> list[Review]:
    """Every sentence of the tab-separated ``file`` (id, rating, text), in its order."""
    rows = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines())
    return [Review(float(rating), text) for _, rating, text in rows]


def split_reviews(reviews: Iterable[Review]) -> tuple[list[Review], list[Review]]:
    """The labelled ``reviews`` for training and those for the test, each in the given order."""
    labelled = [review for review in reviews if review.label is not None]
    return (
        [review for review in labelled if not review.is_test],
        [review for review in labelled if review.is_test],
    )


def to_json_lines(reviews: Iterable[Review]) -> str:
    """``reviews`` as JSON lines, one ``{"input": text, "label": "positive"|"negative"}`` each."""
    rows = ({"input": review.text, "label": review.label} for review in reviews)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def to_inputs(reviews: Sequence[Review], count: int) -> str:
    """So many of ``reviews``, evenly spread, without their labels.

    Returns:
        JSON lines, one ``{"input": text}`` each.
    """
    chosen = reviews[:: len(reviews) // count][:count]
    return "".join(
        json.dumps({"input": review.text}, ensure_ascii=False) + "\n" for review in chosen
    )


def to_passages(reviews: Iterable[Review], count: int) -> str:
    """The first ``count`` of ``reviews`` that are long enough, each cut in two.

    The first third of the words becomes the prompt, which is not scored: what a review is about
    cannot be known. The space at the cut goes to the completion.

    Returns:
        JSON lines, one ``{"prompt": text, "completion": text}`` each.
    """
    words = (review.text.split() for review in reviews)
    long = islice((w for w in words if len(w) >= _MIN_PASSAGE_WORDS), count)
    rows = (
        {"prompt": " ".join(w[: len(w) // 3]), "completion": " " + " ".join(w[len(w) // 3 :])}
        for w in long
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
