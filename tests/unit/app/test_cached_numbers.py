"""Numbers of keys and values, against the cache that transformers itself fills."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from serving.app.cached_numbers import numbers_of_a_token
from serving.seams import WeightShape
from tests.unit.runtimes.tiny_generators import MODELS, TINY

TOKENS = 3


@pytest.mark.parametrize("name", MODELS)
def test_every_family_s_numbers_are_those_that_transformers_keeps(name: str) -> None:
    config = AutoConfig.for_model(**{**TINY, **MODELS[name]})
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    cache: Any = DynamicCache(config=config)
    with torch.inference_mode():
        model(torch.ones((1, TOKENS), dtype=torch.long), past_key_values=cache, use_cache=True)
    kept = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    said = config.to_dict()
    if not hasattr(type(config)(), "num_key_value_heads"):
        del said["num_key_value_heads"]  # of TINY; no checkpoint of this family has it
    assert numbers_of_a_token(said, []) * TOKENS == kept


def test_the_text_s_part_of_a_configuration_counts() -> None:
    text = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
    assert numbers_of_a_token({"hidden_size": 9, "text_config": text}, []) == 2 * 2 * 32


@pytest.mark.parametrize("names", [("k_proj", "v_proj"), ("attn_k", "attn_v")])
def test_where_the_configuration_is_silent_the_weights_tell(names: tuple[str, str]) -> None:
    shapes = [
        WeightShape(f"layers.{layer}.{name}.weight", (6, 16), False)
        for layer in range(2)
        for name in (*names, "other_proj")
    ]
    assert numbers_of_a_token({"num_hidden_layers": 2}, shapes) == 2 * 2 * 6
