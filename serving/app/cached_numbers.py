"""How many numbers a generator caches for a token, from what its configuration says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.seams import WeightShape

_NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "width": ("hidden_size", "n_embd", "n_embed", "d_model"),
    "head_width": ("head_dim", "d_kv"),
}
"""Names in ``config.json``, by what they mean; families differ."""

_KEYS_AND_VALUES = ("k_proj.weight", "v_proj.weight", "attn_k.weight", "attn_v.weight")
"""Weights whose outputs are cached, as safetensors and GGUF files name them."""


def numbers_of_a_token(config: Mapping[str, Any], shapes: Sequence[WeightShape]) -> int | None:
    """Numbers of one key and one value in every layer; None where nothing tells them.

    Args:
        config: The checkpoint's configuration, of a model of several parts that of its text.
        shapes: Its tensors: where the configuration is silent, layers with keys and values of their
            own tell.
    """
    config = config.get("text_config") or config
    layers, heads, width = (_number(config, name) for name in ("layers", "heads", "width"))
    if layers is None or heads is None:
        return sum(s.shape[0] for s in shapes if s.name.endswith(_KEYS_AND_VALUES)) or None
    head_width = _number(config, "head_width")
    if head_width is None and width is not None:
        head_width = width // heads
    return None if head_width is None else 2 * layers * _kv_heads(config, heads) * head_width


def _kv_heads(config: Mapping[str, Any], heads: int) -> int:
    # Of Falcon's later models transformers caches what few heads were spread to.
    if config.get("new_decoder_architecture"):
        return heads
    # One for all queries, whatever number stands beside it: falcon-7b has 71 there.
    return 1 if config.get("multi_query") else _number(config, "kv_heads") or heads


def _number(config: Mapping[str, Any], name: str) -> int | None:
    values = (config.get(key) for key in _NAMES[name])
    # None, 0 and -1 all stand for what the file leaves open.
    return next((int(v) for v in values if isinstance(v, int | float) and v >= 1), None)
