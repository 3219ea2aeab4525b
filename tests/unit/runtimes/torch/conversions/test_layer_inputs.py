from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from serving.runtimes.torch.conversions.layer_inputs import SAMPLED_ROWS, measure_layer_inputs


class Model(nn.Module):
    """Tokens go through one layer, their first through another, and none through the last."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.tokens, self.first, self.unused = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return self.first(self.tokens(self.table(input_ids))[:, 0])


def test_extremes_of_each_input_are_found_without_padding() -> None:
    torch.manual_seed(0)
    model = Model()
    with torch.no_grad():
        model.table.weight[0] = 100.0  # the id of padding
    ids = [np.array([[1, 2, 3], [4, 0, 0]]), np.array([[5, 6, 0]])]
    batches = [{"input_ids": i, "attention_mask": (i != 0).astype(np.int64)} for i in ids]
    seen = measure_layer_inputs(model, batches)
    assert set(seen) == {model.tokens, model.first}
    used = model.table.weight.detach()[1:7]
    assert torch.equal(seen[model.tokens].low, used.amin(0))
    assert torch.equal(seen[model.tokens].high, used.amax(0))
    assert torch.equal(torch.cat(seen[model.tokens].rows).sort(0).values, used.sort(0).values)
    assert len(torch.cat(seen[model.first].rows)) == 3


def test_only_some_rows_are_kept() -> None:
    model = Model()
    ids = np.random.default_rng(0).integers(1, 10, (8, 64))
    batches = [{"input_ids": ids, "attention_mask": np.ones_like(ids)}] * 3
    rows = torch.cat(measure_layer_inputs(model, batches)[model.tokens].rows)
    assert SAMPLED_ROWS <= len(rows) < SAMPLED_ROWS + 3
