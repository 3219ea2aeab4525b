"""Writing and reading again: every tensor comes back where it was, and nothing is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from serving.errors import ConfigError
from serving.runtimes.torch.footprint import weights_bytes
from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
from serving.runtimes.torch.kernels.int8_linear import Int8Linear
from serving.runtimes.torch.kernels.prepacked_linear import PrepackedLinear
from serving.runtimes.torch.reading_modules import read_modules
from serving.runtimes.torch.writing_modules import WEIGHTS, write_modules


class Model(nn.Module):
    """Numbers in every place where modules keep them."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.table.weight
        self.shared = nn.Linear(8, 8)
        self.layers = nn.ModuleList([self.shared, nn.ReLU(), self.shared])
        self.norm = nn.BatchNorm1d(8)
        self.register_buffer("positions", torch.arange(5.0) ** 0.5, persistent=False)
        self.register_buffer("absent", None)
        self.frequencies = self.positions * 2
        self.same = self.positions

    def forward(self, ids: Tensor) -> Any:
        hidden = self.table(ids) + self.positions.sum() + self.frequencies.sum() + self.same[1]
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(self.norm(hidden))


class ListedNumbers(nn.Module):
    """Keeps tensors in a list, which no artifact holds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.slopes = nn.Linear(2, 2), [torch.ones(2)]


NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux' /proc")
IDS = torch.arange(4)


def random_model() -> Model:
    torch.manual_seed(0)
    model = Model().eval().requires_grad_(False)
    model.norm.running_mean = torch.randn(8)
    return model


def opened(folder: Path, *kernels: type) -> Model:
    with torch.device("meta"):
        model = Model().eval()
    read_modules(model, folder, kernels)
    return model


def test_every_tensor_comes_back(tmp_path: Path) -> None:
    model = random_model()
    write_modules(model, tmp_path)
    found = opened(tmp_path)
    assert torch.equal(found(IDS), model(IDS))
    assert found.head.weight is found.table.weight
    assert found.same is found.positions
    assert found.absent is None
    assert not any(parameter.requires_grad for parameter in found.parameters())
    assert weights_bytes(found) == weights_bytes(model)


def test_tied_tensors_are_stored_once(tmp_path: Path) -> None:
    write_modules(random_model(), tmp_path)
    with safe_open(tmp_path / WEIGHTS, framework="pt") as file:
        names = set(file.keys())
    assert {"table.weight", "positions", "frequencies", "norm.running_mean"} < names
    assert not {"head.weight", "same"} & names


def mappings(file: Path) -> list[range]:
    """Addresses at which this process has mapped a file."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    found = [line.split()[0].split("-") for line in lines if line.endswith(str(file))]
    return [range(int(start, 16), int(end, 16)) for start, end in found]


@NEEDS_PROC
def test_tensors_lie_in_the_file(tmp_path: Path) -> None:
    write_modules(random_model(), tmp_path)
    found = opened(tmp_path)
    (where,) = mappings(tmp_path / WEIGHTS)
    assert all(tensor.data_ptr() in where for tensor in found.state_dict().values())


@NEEDS_PROC
def test_the_file_is_let_go_of_where_kernels_hold_all(tmp_path: Path) -> None:
    # The scale of an embedding and the bias of a layer stay in the file; this layer has neither.
    layer = PrepackedLinear.of(nn.Linear(64, 64, bias=False))
    write_modules(nn.Sequential(layer), tmp_path)
    found = nn.Sequential(nn.Linear(64, 64, device="meta"))
    read_modules(found, tmp_path, [PrepackedLinear])
    x = torch.ones(2, 64)
    assert torch.equal(found(x), layer(x))
    assert not mappings(tmp_path / WEIGHTS)


def test_kernels_come_back_in_every_place(tmp_path: Path) -> None:
    model = random_model()
    quantized = Int8Linear.of(model.shared)
    model.set_submodule("shared", quantized)
    model.layers[0] = model.layers[2] = quantized
    table = Int8Embedding.of(model.table, torch.float32)
    model.set_submodule("table", table)
    write_modules(model, tmp_path)
    found = opened(tmp_path, Int8Linear, Int8Embedding)
    assert torch.equal(found(IDS), model(IDS))
    assert found.layers[0] is found.layers[2] is found.shared
    assert weights_bytes(found) == weights_bytes(model)


def test_a_kernel_that_the_recipe_does_not_declare_is_refused(tmp_path: Path) -> None:
    model = random_model()
    model.layers[0] = Int8Linear.of(model.shared)
    write_modules(model, tmp_path)
    with pytest.raises(ConfigError, match="Int8Linear is no kernel of this recipe; it has Int8Em"):
        opened(tmp_path, Int8Embedding)


def test_numbers_that_no_file_holds_are_named(tmp_path: Path) -> None:
    write_modules(ListedNumbers(), tmp_path)
    with torch.device("meta"):
        empty = ListedNumbers()
    with pytest.raises(ConfigError, match="no numbers for slopes"):
        read_modules(empty, tmp_path, ())
