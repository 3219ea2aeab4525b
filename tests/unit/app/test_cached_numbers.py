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
    assert numbers_of_a_token(said, []) == kept / TOKENS


FALCON = {"model_type": "falcon", "multi_query": True, "alibi": False}
BIGCODE = {"model_type": "gpt_bigcode", "n_layer": 2, "n_head": 4, "n_embd": 32, "n_inner": 64}
OLDER_FAMILIES = [
    {**FALCON, "num_kv_heads": 4, "new_decoder_architecture": False},
    {**FALCON, "num_kv_heads": 2, "new_decoder_architecture": True},
    {**FALCON, "multi_query": False, "new_decoder_architecture": False},
    {**BIGCODE, "multi_query": True},
    {**BIGCODE, "multi_query": False},
]


@pytest.mark.parametrize("said", OLDER_FAMILIES, ids=lambda said: f"{said['model_type']}")
def test_heads_that_queries_share_are_kept_as_transformers_does(said: dict[str, Any]) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape: dict[str, Any] = {} if "n_layer" in said else sizes
    config = AutoConfig.for_model(**shape, **said, vocab_size=16)
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    cache: Any = DynamicCache(config=config)
    with torch.inference_mode():
        model(torch.ones((1, TOKENS), dtype=torch.long), past_key_values=cache, use_cache=True)
    kept = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert numbers_of_a_token(config.to_dict(), []) == kept / TOKENS


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        # falcon-7b, starcoder and bloom-560m, as their files say it.
        (
            {"num_hidden_layers": 32, "num_attention_heads": 71, "num_kv_heads": 71}
            | {"hidden_size": 4544, "multi_query": True, "new_decoder_architecture": False},
            2 * 32 * 64,
        ),
        (
            {"n_layer": 40, "n_head": 48, "n_embd": 6144, "multi_query": True},
            2 * 40 * 128,
        ),
        ({"n_layer": 24, "num_attention_heads": 16, "n_embed": 1024}, 2 * 24 * 1024),
    ],
    ids=["falcon", "starcoder", "bloom"],
)
def test_published_configurations_are_read(config: dict[str, Any], numbers: int) -> None:
    assert numbers_of_a_token(config, []) == numbers


@pytest.mark.parametrize(
    "config", [{}, {"num_hidden_layers": 2, "num_attention_heads": 4}], ids=["layers", "width"]
)
def test_what_nothing_tells_is_not_none_at_all(config: dict[str, Any]) -> None:
    assert numbers_of_a_token(config, []) is None


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
