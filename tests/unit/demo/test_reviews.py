from collections import Counter

import pytest

from serving.demo.reviews import (
    TEST_FILE,
    Review,
    read_reviews,
    split_reviews,
    to_json_lines,
)
from serving.quality.dataset import Example, read_examples


@pytest.fixture(scope="module")
def reviews() -> list[Review]:
    return read_reviews()


def test_the_file_holds_every_sentence(reviews: list[Review]) -> None:
    assert len(reviews) == 10_605
    assert all(-4 <= review.rating <= 4 for review in reviews)


@pytest.mark.parametrize(
    ("rating", "label"),
    [
        (4.0, "positive"),
        (0.51, "positive"),
        (0.5, None),
        (0.0, None),
        (-0.5, None),
        (-0.51, "negative"),
        (-4.0, "negative"),
    ],
)
def test_a_label_follows_the_rating(rating: float, label: str | None) -> None:
    assert Review(rating, "A film.").label == label


def test_the_split_has_the_stated_sizes(reviews: list[Review]) -> None:
    train, test = split_reviews(reviews)
    assert (len(train), len(test)) == (8_082, 1_961)
    assert Counter(review.label for review in test) == {"positive": 995, "negative": 966}


def test_no_text_is_on_both_sides(reviews: list[Review]) -> None:
    train, test = split_reviews(reviews)
    assert not {review.text for review in train} & {review.text for review in test}


def test_the_side_of_a_text_depends_on_nothing_else(reviews: list[Review]) -> None:
    train, test = split_reviews(reviews)
    assert split_reviews(reversed(reviews)) == (train[::-1], test[::-1])


def test_the_committed_test_file_is_the_split(reviews: list[Review]) -> None:
    _, test = split_reviews(reviews)
    assert TEST_FILE.read_text(encoding="utf-8") == to_json_lines(test)
    expected = [Example(input=review.text, label=review.label) for review in test]
    assert read_examples(TEST_FILE) == expected
