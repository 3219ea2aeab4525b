"""How close an encoder's answers are to the reference's. Pure functions, computed in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from serving.seams import Comparison, EncoderJudging, ProbeRows

NUM_NEIGHBOURS = 10
"""Nearest probes that are compared; there must be more probes than that."""

SUM_TOLERANCE = 1e-4
"""A float32 softmax adds up to 1 within some 1e-6."""


def embeddings_judging() -> EncoderJudging:
    """How embeddings are compared: whether they find the same probes, and by their cosine."""
    return EncoderJudging(
        agreement=same_neighbours,
        measures=embedding_measures,
        needs_probes=True,
        # Neighbours among so many texts as are held out say more of these texts than of a variant.
        held_to="cosine",
    )


def classification_judging() -> EncoderJudging:
    """How probabilities of labels are compared: by label, change and divergence."""
    return EncoderJudging(
        agreement=same_label, measures=classification_measures, needs_probes=False
    )


def compare_rows(
    judging: EncoderJudging,
    row: NDArray[np.float32],
    reference: NDArray[np.float32],
    probes: ProbeRows | None,
) -> Comparison:
    """Compare a variant's answer to one input with the reference's, both (width,).

    Raises:
        ValueError: The reference's row cannot be compared with.
    """
    return Comparison(
        judging.agreement(row, reference, probes), dict(judging.measures(row, reference))
    )


def same_neighbours(
    row: NDArray[np.float32], reference: NDArray[np.float32], probes: ProbeRows | None
) -> float:
    """Whether two embeddings of one text find the same probes.

    The share of the ``NUM_NEIGHBOURS`` probes nearest to the reference's row, among the
    reference's vectors, that are also nearest to the variant's row, among the variant's: what a
    search over an index that the same variant made would return. Where the vectors of the probes
    are longer than the rows, because the request cut the dimensions, their leading ones count.

    A row of the variant that is zero, NaN or infinite agrees in nothing.

    Raises:
        ValueError: The reference's row is zero, NaN or infinite.
    """
    assert probes is not None  # as ``embeddings_judging`` asks for
    unit, reference_unit = _unit(row), _reference_unit(reference)
    if not unit.any():
        return 0.0
    found = _nearest(unit, probes.rows, probes.leave_out)
    expected = _nearest(reference_unit, probes.reference, probes.leave_out)
    return len(found & expected) / NUM_NEIGHBOURS


def embedding_measures(
    row: NDArray[np.float32], reference: NDArray[np.float32]
) -> Mapping[str, float]:
    """``cosine`` of the angle between two embeddings; 0 if the variant's has no direction.

    Raises:
        ValueError: The reference's row is zero, NaN or infinite.
    """
    return {"cosine": float(np.clip(_unit(row) @ _reference_unit(reference), -1, 1))}


def same_label(
    probabilities: NDArray[np.float32],
    reference: NDArray[np.float32],
    probes: ProbeRows | None = None,
) -> float:
    """Whether the labels of one text are the same, 1 or 0; both arrays are (labels,).

    Where the labels exclude each other (see ``_exclude_each_other``) the most probable one counts,
    else all that are above one half. A regression's values, which are no probabilities, agree the
    less, from 1 to 0, the more the worst of them is off, as a share of the value or of 1. A
    variant's row with NaN or infinity agrees in nothing.

    Raises:
        ValueError: The reference's row has NaN or infinity.
    """
    p, q = _reference_probabilities(reference), probabilities.astype(np.float64)
    if not np.isfinite(q).all():
        return 0.0
    if not _are_probabilities(p):
        return float(np.clip(1 - np.abs(p - q) / np.maximum(np.abs(p), 1), 0, 1).min())
    if _exclude_each_other(p):
        return float(p.argmax() == q.argmax())
    return float(np.array_equal(p > 0.5, q > 0.5))


def classification_measures(
    probabilities: NDArray[np.float32], reference: NDArray[np.float32]
) -> Mapping[str, float]:
    """How far apart the probabilities of the labels of one text are, both (labels,).

    ``probability_change`` is the largest of any label, absolute. ``divergence`` is the
    Jensen-Shannon one of the two distributions, in nats, 0 to ln 2; where each label has a
    probability of its own, the mean of the labels' own. A variant's row with NaN or infinity is as
    far away as possible. Of a regression's values, which are no probabilities, there is only the
    largest ``score_change``, and nothing of a variant's row with NaN or infinity.

    Raises:
        ValueError: The reference's row has NaN or infinity.
    """
    p, q = _reference_probabilities(reference), probabilities.astype(np.float64)
    if not _are_probabilities(p):
        return {"score_change": float(np.abs(p - q).max())} if np.isfinite(q).all() else {}
    if not np.isfinite(q).all():
        return {"probability_change": 1.0, "divergence": math.log(2)}
    change = float(np.abs(p - q).max())
    q = np.clip(q, 0, 1)  # where a regression's value is a probability in the reference alone
    if _exclude_each_other(p):
        divergence = _jensen_shannon(p, q)
    else:
        divergence = _jensen_shannon(np.stack([p, 1 - p], -1), np.stack([q, 1 - q], -1)).mean()
    return {
        "probability_change": change,
        "divergence": float(divergence),
    }


def cosine_similarities(
    rows: NDArray[np.float32], reference: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Cosine of each row's angle to the reference's row, (texts,), computed in float64.

    Args:
        rows: The variant's vectors, (texts, width), none of them zero.
        reference: The reference's, of the same shape.
    """
    a, b = rows.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    similarities: NDArray[np.float64] = np.einsum("ij,ij->i", a, b) / norms
    return similarities


def same_label_share(rows: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Share of texts whose most probable label is the reference's; rows are (texts, labels)."""
    return float((rows.argmax(axis=1) == reference.argmax(axis=1)).mean())


def _nearest(
    unit: NDArray[np.float64], neighbours: NDArray[np.float32], leave_out: int | None
) -> set[int]:
    """Indices of the probes nearest to a unit vector; of equally near ones the first."""
    cosines = _unit(neighbours[:, : len(unit)]) @ unit
    if leave_out is not None:
        cosines[leave_out] = -np.inf
    return set(np.argsort(-cosines, kind="stable")[:NUM_NEIGHBOURS].tolist())


def _reference_unit(row: NDArray[np.float32]) -> NDArray[np.float64]:
    unit = _unit(row)
    if not unit.any():
        raise ValueError("the reference's embedding is zero, NaN or infinite")
    return unit


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scale rows (…, width) to length 1; one that has no direction becomes zero."""
    wide = rows.astype(np.float64)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    has_direction = np.isfinite(norms) & (norms > 0)
    unit = np.zeros_like(wide)
    np.divide(wide, norms, out=unit, where=has_direction)
    return unit


def _reference_probabilities(row: NDArray[np.float32]) -> NDArray[np.float64]:
    if not np.isfinite(row).all():
        raise ValueError("the reference's probabilities have NaN or infinity")
    return row.astype(np.float64)


def _are_probabilities(reference: NDArray[np.float64]) -> bool:
    return bool(((reference >= 0) & (reference <= 1)).all())


def _exclude_each_other(reference: NDArray[np.float64]) -> bool:
    """Whether a text has one label only: there are several, and they add up to 1.

    It shows in the reference's probabilities alone, so that a broken variant cannot change what is
    measured. Independent labels that add up to 1 by chance, about once in some thousand texts, are
    measured as if they excluded each other, which makes sense for them, too.
    """
    return len(reference) > 1 and bool(abs(reference.sum() - 1) < SUM_TOLERANCE)


def _jensen_shannon(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Jensen-Shannon divergence over the last axis, in nats, 0 … ln 2 (Lin, 1991)."""
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    middle = (p + q) / 2
    divergence: NDArray[np.float64] = (
        rel_entr(p, middle).sum(-1) + rel_entr(q, middle).sum(-1)
    ) / 2
    return divergence
