"""The fused model against transformers' own forward pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from serving.runtimes.torch.conversions.input_importance import (
    DAMPING,
    ROWS,
    TOKENS,
    measure_input_importance,
)
from serving.runtimes.torch.conversions.input_importance import random_tokens as random_batch
from serving.runtimes.torch.conversions.input_moments import InputMoments
from serving.runtimes.torch.decoder.fusing import fuse
from serving.runtimes.torch.kernels.kernel_module import KernelModule
from serving.runtimes.torch.kernels.prepacked_linear import PrepackedLinear
from serving.seams import Segment
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    VOCABULARY,
    decoder_of,
    logits_of,
    numerics_of,
    random_model,
    random_tokens,
)

TOLERANCE, DEVIATION = 1e-4, 1.8
"""On logits with such a deviation. float32 sums in another order here: over three layers of up to
192 terms that makes 2e-5 to 4e-5 at worst, in three seeds of each model."""


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(name: str, seed: int) -> None:
    model, tokens = random_model(seed, **MODELS[name]), random_tokens(100, seed)
    expected = logits_of(model, tokens)
    logits = decoder_of(model).step([Segment(1, 0, tokens, len(tokens))])
    assert logits.shape == (100, VOCABULARY)
    assert logits.dtype == np.float32
    atol = TOLERANCE * expected.std() / DEVIATION
    np.testing.assert_allclose(logits, expected, atol=atol, rtol=0)
    # A model in which order, positions or scaling do not matter would prove nothing.
    assert np.abs(expected[1:] - expected[:-1]).max() > 1


class Spy(KernelModule):
    """A linear layer that keeps the mass it was given and the squares of what it sees."""

    def __init__(self, linear: nn.Linear, mass: Tensor | None) -> None:
        super().__init__()
        self.linear, self.mass = PrepackedLinear.of(linear), mass
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.square())
        return self.linear(x)


@pytest.mark.parametrize("name", ["llama", "llama-untied", "llama-one-key", "qwen3"])
def test_each_layer_gets_the_importance_of_its_own_inputs(name: str) -> None:
    model = random_model(**MODELS[name])
    spies: list[Spy] = []

    def spy(linear: nn.Linear, inputs: InputMoments | None) -> Spy:
        spies.append(Spy(linear, None if inputs is None else inputs.squares))
        return spies[-1]

    batch = random_batch(model)
    numerics = replace(
        numerics_of("fp32"),
        linear=spy,
        measure_inputs=lambda model, _: {
            layer: InputMoments(squares)
            for layer, squares in measure_input_importance(model, batch).items()
        },
    )
    decoder = decoder_of(model, numerics, num_slots=ROWS, slot_tokens=TOKENS)
    rows = batch["input_ids"].tolist()
    decoder.step([Segment(slot, 0, row, len(row)) for slot, row in enumerate(rows)])
    assert len(spies) == 3 * 4 + (not MODELS[name]["tie_word_embeddings"])
    for layer in spies:
        square = torch.cat(layer.seen).mean(0)
        assert layer.mass is not None
        torch.testing.assert_close(layer.mass, square + DAMPING * square.mean(), rtol=1e-3, atol=0)


def test_the_model_lets_go_of_its_layers() -> None:
    model = random_model(**MODELS["llama"])
    fuse(model, numerics_of("int4"))
    assert not [module for module in model.model.layers.modules() if type(module) is nn.Linear]
