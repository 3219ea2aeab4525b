from __future__ import annotations

import numpy as np
import torch

from serving.runtimes.torch.conversions.input_moments import InputMoments, measure_input_moments
from tests.unit.runtimes.torch.conversions.test_input_importance import Model


def test_moments_are_those_of_every_token_that_is_no_padding() -> None:
    model = Model()
    with torch.no_grad():
        model.table.weight[1:3, 1] = torch.tensor([-2.0, 5.0])
    ids = np.array([[1, 2], [2, 0]])
    batches = [
        {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)},
        {"input_ids": np.array([[1, 3, 3]])},
    ]
    found = measure_input_moments(model, batches)[model.layer]
    seen = torch.tensor([[1.0, -2], [3, 5], [3, 5], [1, -2], [0, 0], [0, 0]])
    assert found.magnitudes is not None
    assert found.products is not None
    torch.testing.assert_close(found.magnitudes, seen.abs().mean(0))
    torch.testing.assert_close(found.products, seen.T @ seen / 6)
    torch.testing.assert_close(found.squares, seen.square().mean(0))


def test_the_same_inputs_in_another_order() -> None:
    rows = torch.randn(50, 3)
    order = torch.tensor([2, 0, 1])
    moved = rows[:, order]
    found = InputMoments(rows.square().mean(0), rows.abs().mean(0), rows.T @ rows / 50).reordered(
        order
    )
    assert found.magnitudes is not None
    assert found.products is not None
    torch.testing.assert_close(found.squares, moved.square().mean(0))
    torch.testing.assert_close(found.magnitudes, moved.abs().mean(0))
    torch.testing.assert_close(found.products, moved.T @ moved / 50)
    without = InputMoments(rows[0]).reordered(order)
    assert (without.magnitudes, without.products) == (None, None)
