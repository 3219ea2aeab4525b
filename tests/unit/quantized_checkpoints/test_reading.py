"""A layer whose parts, or whose configuration, hold what they never do is refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from serving.errors import SourceError
from serving.quantized_checkpoints.bitsandbytes import STATES
from serving.quantized_checkpoints.forms import FORMS
from serving.quantized_checkpoints.reading import read_layers

FP8 = {"weight": torch.zeros(4, 4).to(torch.float8_e4m3fn), "weight_scale_inv": torch.ones(2, 2)}


def state(said: bytes) -> dict[str, Tensor]:
    return {
        "weight": torch.zeros(64, 1, dtype=torch.uint8),
        "weight.absmax": torch.ones(2),
        "weight.quant_map": torch.ones(16),
        STATES[0]: torch.tensor(list(said), dtype=torch.uint8),
    }


@pytest.mark.parametrize(
    ("method", "parts", "said"),
    [
        ("fp8", FP8, {"weight_block_size": 128}),
        ("fp8", FP8, {"weight_block_size": ["2", "2"]}),
        ("bitsandbytes", state(b"[64]"), {}),
        ("bitsandbytes", state(b'{"shape": 64, "blocksize": 64}'), {}),
        ("bitsandbytes", state(b'{"shape": [1e400], "blocksize": 64}'), {}),
        ("bitsandbytes", state(b'{"shape": [18446744073709551616], "blocksize": 64}'), {}),
    ],
)
def test_damage_is_told_by_the_layer(
    tmp_path: Path, method: str, parts: dict[str, Tensor], said: dict[str, Any]
) -> None:
    file = tmp_path / "model.safetensors"
    save_file({f"layer.{part}": tensor for part, tensor in parts.items()}, file)
    with pytest.raises(SourceError, match="layer: its weight cannot be read from weight, "):
        list(read_layers([file], FORMS[method], said))
