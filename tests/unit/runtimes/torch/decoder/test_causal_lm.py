"""The fused model against transformers' own forward pass, and the models that it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig

from serving.errors import ConfigError
from serving.runtimes.torch.conversions.input_importance import (
    DAMPING,
    ROWS,
    TOKENS,
    measure_input_importance,
)
from serving.runtimes.torch.decoder.causal_lm import (
    ARCHITECTURES,
    check_architecture,
    fuse,
    rotations,
)
from serving.runtimes.torch.kernels.prepacked_linear import PrepackedLinear
from serving.seams import Segment
from tests.unit.runtimes.tiny_generators import (
    DYNAMIC_ROPE,
    LONG_ROPE,
    MODELS,
    TINY,
    VOCABULARY,
    decoder_of,
    load_tiny_generator,
    logits_of,
    numerics_of,
    random_model,
    random_tokens,
    save_generator,
)

TOLERANCE = 1e-4
"""On logits with a deviation of 1.8. float32 sums in another order here: over three layers of up to
192 terms that makes 2e-5 to 4e-5 at worst, in three seeds of each model."""


def test_every_known_architecture_is_tested() -> None:
    assert {config["model_type"] for config in MODELS.values()} == set(ARCHITECTURES)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(name: str, seed: int) -> None:
    model, tokens = random_model(seed, **MODELS[name]), random_tokens(100, seed)
    expected = logits_of(model, tokens)
    logits = decoder_of(model).step([Segment(1, 0, tokens, len(tokens))])
    assert logits.shape == (100, VOCABULARY)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=0)
    # A model in which order, positions or scaling do not matter would prove nothing.
    assert np.abs(expected[1:] - expected[:-1]).max() > 1


@pytest.mark.parametrize("name", ["llama3-rope", "yarn-rope", "linear-rope"])
def test_scaled_positions_differ_from_plain_ones(name: str) -> None:
    scaled = rotations(random_model(**MODELS[name]), 128)
    plain = rotations(random_model(**MODELS["llama"]), 128)
    assert scaled.shape == plain.shape == (128, 16)
    assert scaled.dtype == torch.complex64
    assert (scaled - plain).abs().max() > 1


class Spy(nn.Module):
    """A linear layer that keeps the mass it was given and the squares of what it sees."""

    def __init__(self, linear: nn.Linear, mass: Tensor | None) -> None:
        super().__init__()
        self.linear, self.mass = PrepackedLinear(linear), mass
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.square())
        return self.linear(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["llama", "llama-untied", "llama-one-key", "qwen3"])
def test_each_layer_gets_the_importance_of_its_own_inputs(name: str) -> None:
    model = random_model(**MODELS[name])
    spies: list[Spy] = []

    def spy(linear: nn.Linear, mass: Tensor | None) -> Spy:
        spies.append(Spy(linear, mass))
        return spies[-1]

    numerics = replace(numerics_of("fp32"), linear=spy, measure_importance=measure_input_importance)
    decoder = decoder_of(model, numerics, num_slots=ROWS, slot_tokens=TOKENS)
    ids = torch.randint(VOCABULARY, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    decoder.step([Segment(slot, 0, row, len(row)) for slot, row in enumerate(ids.tolist())])
    assert len(spies) == 3 * 4 + (not MODELS[name]["tie_word_embeddings"])
    for layer in spies:
        square = torch.cat(layer.seen).mean(0)
        assert layer.mass is not None
        torch.testing.assert_close(layer.mass, square + DAMPING * square.mean(), rtol=1e-3, atol=0)


def test_the_model_lets_go_of_its_layers() -> None:
    model = random_model(**MODELS["llama"])
    fuse(model, numerics_of("int4"))
    assert not [module for module in model.model.layers.modules() if type(module) is nn.Linear]


REFUSED: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2"},
    "gemma2": {"model_type": "gemma2"},
    "sliding window": {"model_type": "mistral", "sliding_window": 64},
    "sliding window, which qwen2": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 64,
    },
    "gelu": {"model_type": "llama", "hidden_act": "gelu"},
    "positions that depend on the length": {
        "model_type": "llama",
        "rope_parameters": DYNAMIC_ROPE,
    },
    "depend on the length, which qwen3": {"model_type": "qwen3", "rope_parameters": LONG_ROPE},
    "a part of each head": {
        "model_type": "llama",
        "rope_parameters": {
            "rope_theta": 10_000.0,
            "rope_type": "default",
            "partial_rotary_factor": 0.5,
        },
    },
}


@pytest.mark.parametrize("named", REFUSED)
def test_other_models_are_refused_by_name(named: str) -> None:
    config = AutoConfig.for_model(**{**TINY, **REFUSED[named]})
    with pytest.raises(ConfigError, match=named):
        check_architecture(config)


@pytest.mark.parametrize("name", MODELS)
def test_known_models_are_not_refused(name: str) -> None:
    check_architecture(AutoConfig.for_model(**{**TINY, **MODELS[name]}))


def test_an_unknown_checkpoint_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    checkpoint = save_generator(tmp_path, model_type="gpt2", n_embd=64, n_layer=1)
    with pytest.raises(ConfigError, match=r"llama, mistral, qwen2, qwen3.*'gpt2'"):
        load_tiny_generator("fp32", checkpoint)


def test_a_checkpoint_that_cannot_generate_is_refused(tmp_path: Path) -> None:
    checkpoint = save_generator(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"vit"'))
    with pytest.raises(ConfigError, match="AutoModelForCausalLM"):
        load_tiny_generator("fp32", checkpoint)
