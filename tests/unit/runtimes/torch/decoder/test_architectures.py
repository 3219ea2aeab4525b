"""Models that can be fused, and those that are refused."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig

from serving.errors import ConfigError
from serving.runtimes.torch.decoder.architectures import ARCHITECTURES, check_architecture
from tests.unit.runtimes.tiny_generators import DYNAMIC_ROPE, LONG_ROPE, MODELS, TINY


def test_every_known_architecture_is_tested() -> None:
    assert {config["model_type"] for config in MODELS.values()} == set(ARCHITECTURES)


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
