"""Architectures of transformers whose answers would be wrong here; told from ``config.json``.

``tests/unit/runtimes/torch/test_families.py`` meets every family of text models that transformers
has, and shows of each entry that there is a reason for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.errors import ConfigError
from serving.seams import Checkpoint

READS_PADDING = frozenset({"canine", "convbert", "fnet", "nystromformer", "reformer", "yoso"})
"""Convolutions, Fourier transforms, landmarks, hashes: what they make of a text depends on the
padding behind it, attention mask or not."""

NO_TEXTS = frozenset({"layoutlmv2", "perceiver"})
"""They take bytes, or pictures of pages, under other names than ``input_ids``."""

NEEDS_DECODER_INPUTS = frozenset({"longt5", "mt5", "switch_transformers", "t5", "umt5"})
"""Their bare model is encoder and decoder at once, and does not make the decoder's inputs."""

BLOCK_SPARSE = frozenset({"big_bird", "bigbird_pegasus"})
"""Attention by blocks, whose places depend on the padding; by default, and for long texts only."""


def require_served(checkpoint: Checkpoint, config: Mapping[str, Any], is_classifier: bool) -> None:
    """Raise ``ConfigError`` if answers would depend on a text's company, or be none.

    Args:
        checkpoint: For the message.
        config: Its ``config.json``, or what transformers makes of it.
        is_classifier: Whether the model with a classification head is asked for.
    """
    kind = str(config.get("model_type"))
    reason = _why_not(kind, config, is_classifier)
    if reason is not None:
        raise ConfigError(f"{checkpoint.folder}: no {kind} can be served: {reason}")


def _why_not(kind: str, config: Mapping[str, Any], is_classifier: bool) -> str | None:
    if kind in READS_PADDING:
        return "its layers read padding, so that answers would depend on what shares a batch"
    if kind == "funnel" and not is_classifier:
        return "padding shifts what it pools, so that answers would depend on what shares a batch"
    if kind in NO_TEXTS:
        return "it takes no texts as token ids"
    if kind == "mra":
        return "its attention needs a CUDA kernel, and without one gives zeros"
    if kind in NEEDS_DECODER_INPUTS and not is_classifier:
        return "its bare model wants inputs for a decoder, too"
    if kind in BLOCK_SPARSE and config.get("attention_type", "block_sparse") != "original_full":
        return (
            "block-sparse attention answers by what shares a batch and by what came before; set "
            'attention_type to "original_full" in config.json'
        )
    if kind == "xmod" and config.get("default_language") is None:
        return "config.json names no default_language"
    if kind == "xlnet" and is_classifier and config.get("summary_type", "last") == "last":
        return "its classifier answers from the last position of a row, padding included"
    return None
