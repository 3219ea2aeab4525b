from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from serving.runtimes.torch.conversions.input_importance import DAMPING, measure_input_importance


class Model(nn.Module):
    """Two numbers for each of four tokens go through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(4, 2), nn.Linear(2, 2)
        with torch.no_grad():
            self.table.weight.copy_(torch.tensor([[9.0, 9.0], [1.0, 0.0], [3.0, 0.0], [0.0, 0.0]]))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return self.layer(self.table(input_ids))


def test_mean_squares_of_what_is_no_padding() -> None:
    model = Model()
    ids = np.array([[1, 2], [2, 0]])
    batch = {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}
    found = measure_input_importance(model, batch)[model.layer]
    squares = torch.tensor([(1 + 9 + 9) / 3, 0.0])
    # The silent input counts a little: a hundredth of the mean; float32 keeps seven digits.
    torch.testing.assert_close(found, squares + DAMPING * squares.mean(), rtol=1e-6, atol=0)
