"""Models that can be fused, and those that are refused."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig

from serving.errors import ConfigError
from serving.runtimes.torch.decoder.architectures import (
    ARCHITECTURES,
    check_architecture,
    why_not_so_long,
)
from tests.unit.runtimes.tiny_generators import DYNAMIC_ROPE, LONG_ROPE, MODELS, TINY


def test_every_known_architecture_is_tested() -> None:
    assert {config["model_type"] for config in MODELS.values()} == set(ARCHITECTURES)


REFUSED: dict[str, dict[str, Any]] = {
    "mamba": {"model_type": "mamba"},
    "gptj": {"model_type": "gptj"},
    "relu": {"model_type": "llama", "hidden_act": "relu"},
    "relu', which gpt2": {"model_type": "gpt2", "activation_function": "relu"},
    "divided by the number of the layer": {
        "model_type": "gpt2",
        "scale_attn_by_inverse_layer_idx": True,
    },
    "attention to later tokens": {
        "model_type": "gemma3_text",
        "use_bidirectional_attention": True,
    },
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


WINDOWS: list[tuple[dict[str, Any], int | None]] = [
    ({"model_type": "llama"}, None),
    ({"model_type": "mistral", "sliding_window": None}, None),
    ({"model_type": "mistral", "sliding_window": 64}, 64),
    ({"model_type": "mistral"}, 4_096),
    ({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": False}, None),
    ({"model_type": "qwen2", "sliding_window": 64}, None),
    ({"model_type": "qwen3", "sliding_window": 64, "use_sliding_window": True}, 64),
    ({"model_type": "gemma2"}, 4_096),
    ({"model_type": "gemma3_text", "sliding_window": 512}, 512),
    ({"model_type": "phi3", "sliding_window": 2_047}, 2_047),
    ({"model_type": "gpt2"}, None),
    ({"model_type": "gpt_neox"}, None),
]


@pytest.mark.parametrize(("config", "window"), WINDOWS)
def test_sequences_may_be_as_long_as_every_layer_sees(
    config: dict[str, Any], window: int | None
) -> None:
    assert why_not_so_long(config, window or 1_000_000) is None
    if window is not None:
        reason = why_not_so_long(config, window + 1)
        assert reason is not None
        assert f"see the latest {window} tokens, and sequences may have {window + 1}" in reason
        assert f"give the model max_tokens of {window} or fewer" in reason


@pytest.mark.parametrize("name", MODELS)
def test_known_models_are_not_refused(name: str) -> None:
    check_architecture(AutoConfig.for_model(**{**TINY, **MODELS[name]}))
