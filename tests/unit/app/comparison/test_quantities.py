"""The table's arithmetic, against formulas written anew."""

import math

import numpy as np
import pytest

from serving.app.comparison.measuring import Answers, Continued, Occupied
from serving.app.comparison.quantities import (
    Figure,
    Quantity,
    accuracy,
    agreement,
    answering_time,
    continuing_time,
    labels_met,
    of_reference,
    probability,
    sizes,
)
from serving.errors import ConfigError
from serving.quality.agreement import classification_judging, embeddings_judging
from serving.quality.dataset import Example
from serving.quality.statistics import share
from serving.seams import TokenLogprob

NO_ROWS = np.empty((0, 0), np.float32)


def test_accuracy_is_beside_the_reference_s_on_the_same_examples() -> None:
    """The ratio's interval, against the delta method for paired shares on 2,000 examples.

    It takes the reference's accuracy for certain, and adds one to both kinds of disagreement: each
    moves an end by less than a tenth of the interval's width of 0.02.
    """
    chance = np.random.default_rng(0)
    reference = chance.random(2_000) < 0.75
    met = np.where(chance.random(2_000) < 0.05, ~reference, reference)
    found = accuracy(met.tolist(), reference.tolist())
    ratio, points = found["accuracy"].ratio, found["difference_points"].figure
    assert ratio is not None
    x, y = met.astype(float), reference.astype(float)
    assert found["accuracy"].figure.value == pytest.approx(x.mean())
    assert ratio.value == pytest.approx(x.mean() / y.mean())
    assert points.value == pytest.approx(100 * (x.mean() - y.mean()))
    half = 1.96 * ratio.value * np.std(x / x.mean() - y / y.mean(), ddof=1) / math.sqrt(len(x))
    assert (ratio.low, ratio.high) == pytest.approx(
        (ratio.value - half, ratio.value + half), abs=2e-3
    )
    assert found["difference_points"].ratio is None


def test_a_reference_that_meets_no_label_gives_no_ratio() -> None:
    assert accuracy([True, False], [False, False])["accuracy"].ratio is None


def test_labels_are_met_by_the_most_probable_class() -> None:
    rows = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32)
    examples = [Example("a", "no"), Example("b", "yes"), Example("c", "yes")]
    assert labels_met(rows, ("no", "yes"), examples) == [True, True, False]
    with pytest.raises(ConfigError, match="has labels maybe, yes; the model has no, other"):
        labels_met(rows, ("no", "other"), [*examples[:2], Example("c", "maybe")])


def test_times_are_compared_inside_a_round() -> None:
    """A machine that slows down threefold changes no ratio."""
    pace = np.geomspace(1, 3, 5)
    own = [Answers(NO_ROWS, seconds) for seconds in 0.5 * pace]
    theirs = [Answers(NO_ROWS, seconds) for seconds in 2 * pace]
    time = answering_time(own, theirs)["time_s"]
    assert time.figure.value == pytest.approx(0.5 * pace.sum())
    assert time.ratio is not None
    ends = (time.ratio.low, time.ratio.value, time.ratio.high)
    assert ends == pytest.approx((0.25, 0.25, 0.25))


def test_a_generator_s_speed_is_a_geometric_mean() -> None:
    own = [Continued(0.1, 20.0), Continued(0.4, 80.0)]
    found = continuing_time(own, [Continued(0.2, 10.0), Continued(0.2, 10.0)])
    assert found["tokens_per_s"].figure.value == pytest.approx(40)
    assert found["first_token_s"].figure.value == pytest.approx(0.2)
    speed, first = found["tokens_per_s"].ratio, found["first_token_s"].ratio
    assert speed is not None
    assert first is not None
    assert (speed.value, first.value) == pytest.approx((4, 1))


def test_agreement_is_a_mean_over_the_inputs() -> None:
    rows = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32)
    other = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]], np.float32)
    found = agreement(rows, other, classification_judging())["agreement"]
    assert found.figure.value == 0.75
    assert found.ratio is None
    cosines = agreement(rows, other, embeddings_judging())
    # 0.6·0.4 twice, over 0.36 + 0.16.
    assert cosines["cosine"].figure.value == pytest.approx((3 + 0.48 / 0.52) / 4)
    assert "agreement" not in cosines  # of embeddings it is about the probes


def test_probability_is_beside_the_reference_s() -> None:
    def scores(*logprobs: float, top: int = 5) -> list[TokenLogprob]:
        return [TokenLogprob(1, logprob, ((top, -0.1),)) for logprob in logprobs]

    texts, reference = [scores(-1.0, -3.0), scores(-2.0)], [scores(-1.0, -2.0), scores(-1.5, top=6)]
    found = probability(texts, reference)
    assert found["perplexity"].figure.value == pytest.approx(math.exp(2))
    ratio = found["perplexity"].ratio
    assert ratio is not None
    assert ratio.value == pytest.approx(math.exp(2) / math.exp(1.5))
    assert found["same_top_token"].figure.value == pytest.approx(2 / 3)


def test_the_reference_beside_itself_has_no_interval_but_of_what_it_is_alone() -> None:
    met = [True, False, True]
    found = of_reference(accuracy(met, met))
    assert found["accuracy"].ratio == Figure(1)
    assert found["accuracy"].figure.low == pytest.approx(share(2, 3).low)
    assert found["difference_points"] == Quantity(Figure(0))


def test_sizes_are_exact() -> None:
    found = sizes(Occupied(10, 40, 20, 60), 5, Occupied(40, 100, 50, 120), 0)
    assert [
        (name, one.figure.value, one.ratio and (one.ratio.value, one.ratio.low))
        for name, one in found.items()
    ] == [
        ("resident_bytes", 40, (0.4, None)),
        ("peak_bytes", 60, (0.5, None)),
        ("private_bytes", 20, (0.4, None)),
        ("weights_bytes", 10, (0.25, None)),
        ("disk_bytes", 5, None),
    ]
