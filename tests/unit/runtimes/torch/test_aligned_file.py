"""The files are what the format says, and their tensors lie where kernels can read them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from serving.runtimes.torch.aligned_file import ALIGNMENT, FILLER, save_aligned

TENSORS = {
    "odd": torch.arange(7, dtype=torch.int8),
    "layers.0.weight": torch.randn(5, 3),
    "layers.0.bias": torch.randn(3).bfloat16(),
    "flags": torch.tensor([True, False, True]),
    "one": torch.tensor(2.5),
    "ids": torch.arange(11),
    "empty": torch.empty(0, 4),
    "whole": torch.randint(256, (4, 64), dtype=torch.uint8),
}


def test_every_tensor_comes_back(tmp_path: Path) -> None:
    save_aligned(TENSORS, tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert {name for name in found if not name.endswith(FILLER)} == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_mapped_tensors_are_aligned(tmp_path: Path) -> None:
    save_aligned(TENSORS, tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        places = {name: file.get_tensor(name).data_ptr() % ALIGNMENT for name in TENSORS}
    del places["empty"]
    assert set(places.values()) == {0}


@pytest.mark.parametrize("length", range(1, 70))
def test_however_long_the_names_are(tmp_path: Path, length: int) -> None:
    save_aligned({"n" * length: torch.ones(3)}, tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        tensor = file.get_tensor("n" * length)
    assert torch.equal(tensor, torch.ones(3))
    assert tensor.data_ptr() % ALIGNMENT == 0
