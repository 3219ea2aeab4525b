from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from serving.runtimes.torch.conversions.direct_reads import kept_note, modules_read_directly


class Model(nn.Module):
    """Calls one table and one layer, and takes the weights of others past them."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.read = nn.Embedding(10, 4), nn.Embedding(10, 4)
        self.layer, self.tied = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, input_ids: Tensor) -> Any:
        hidden = self.layer(self.called(input_ids))
        return functional.linear(hidden, self.tied.weight) + self.read.weight[input_ids]


def test_weights_that_are_taken_past_their_modules_are_found() -> None:
    model = Model()
    before = model(torch.ones(1, 3, dtype=torch.int64))
    read = modules_read_directly(model, {"input_ids": np.ones((1, 3), np.int64)})
    assert read == {model.read, model.tied}
    assert kept_note(model, read) == (
        "kept in float, as the model reads them directly: read, tied",
    )
    assert kept_note(model, frozenset()) == ()
    # Nothing of the watching stays behind.
    kinds = [type(module) for module in model.children()]
    assert kinds == [nn.Embedding, nn.Embedding, nn.Linear, nn.Linear]
    assert torch.equal(model(torch.ones(1, 3, dtype=torch.int64)), before)
