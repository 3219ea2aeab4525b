"""The factors of a LoRA adapter that stays beside the weights, while a model is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from serving.errors import ConfigError
from serving.lora_adapter import WEIGHTS, read_changes
from serving.runtimes.torch.conversions import CONVERSIONS
from serving.runtimes.torch.kernels.adapted_linear import AdaptedLinear
from serving.runtimes.torch.kernels.kernel_module import KernelModule
from serving.seams import PrepareRequest, WeightShape


@dataclass(frozen=True, slots=True)
class LowRank:
    """What is added to the weight of a linear layer (out, in): ``second @ first``.

    Attributes:
        first: float32 (rank, in).
        second: float32 (out, rank), with the adapter's scale in it.
    """

    first: Tensor
    second: Tensor

    def of_outputs(self, order: Tensor) -> LowRank:
        """Of a layer that has some of the outputs, in an order."""
        return LowRank(self.first, self.second[order])

    def of_inputs(self, order: Tensor) -> LowRank:
        """Of a layer that gets its inputs in another order."""
        return LowRank(self.first[:, order], self.second)

    def scaled(self, scale: float) -> LowRank:
        """Of a layer whose outputs are multiplied."""
        return LowRank(self.first, self.second * scale)


@dataclass(frozen=True, slots=True)
class Beside:
    """An adapter, and how a recipe keeps it.

    Attributes:
        low_ranks: What is added to linear layers, by the paths of their modules.
        kind: Of a layer with its factors.
    """

    low_ranks: Mapping[str, LowRank]
    kind: type[AdaptedLinear]

    def around(self, base: KernelModule, low_rank: LowRank) -> AdaptedLinear:
        """A quantized layer with its factors, rounded to bfloat16."""
        return self.kind(base, low_rank.first.bfloat16(), low_rank.second.bfloat16())


def find_beside(request: PrepareRequest, model: nn.Module) -> Beside | None:
    """Read what stays beside the weights of a model; None if nothing does.

    Raises:
        SourceError: It was not made for this model.
    """
    if request.adapter is None:
        return None
    adapted_linear = CONVERSIONS[request.recipe].adapted_linear
    assert adapted_linear is not None, f"{request.recipe} has no place for an adapter"
    return Beside(_read_low_ranks(request.adapter, model), adapted_linear())


def _read_low_ranks(adapter: Path, model: nn.Module) -> dict[str, LowRank]:
    """Read an adapter's factors, by the paths of the modules of a model of transformers.

    Raises:
        SourceError: It was not made for this model.
    """
    shapes = [
        WeightShape(name, tuple(one.shape), is_embedding=False)
        for name, one in model.named_parameters()
    ]
    with safe_open(adapter / WEIGHTS, framework="pt") as theirs:
        return {
            update.weight.removesuffix(".weight"): LowRank(
                theirs.get_tensor(update.factors[0]).float(),
                theirs.get_tensor(update.factors[1]).float() * update.scale,
            )
            for update in read_changes(adapter, shapes).updates
        }


def put_beside(model: nn.Module, beside: Beside) -> None:
    """Give the layers of a converted encoder their factors; those that stayed float add them.

    Raises:
        ConfigError: The adapter is for a module that is no linear layer.
    """
    for path, low_rank in beside.low_ranks.items():
        module = model.get_submodule(path)
        if isinstance(module, KernelModule):
            parent, _, attribute = path.rpartition(".")
            setattr(model.get_submodule(parent), attribute, beside.around(module, low_rank))
        elif type(module) is nn.Linear:
            module.weight.data += (low_rank.second @ low_rank.first).to(module.weight.dtype)
        else:
            raise ConfigError(f"its adapter is for {path}, a {type(module).__name__}")


def set_low_rank(linear: nn.Module, low_rank: LowRank | None) -> None:
    """Have a float layer carry what will stand beside it."""
    if low_rank is not None:
        vars(linear)["low_rank"] = low_rank


def low_rank_of(linear: nn.Module) -> LowRank | None:
    """What a float layer carries."""
    found: LowRank | None = vars(linear).get("low_rank")
    return found


def join_low_ranks(linears: Sequence[nn.Linear]) -> LowRank | None:
    """Of a layer that has the outputs of several, one after the other, of the same inputs."""
    found = [low_rank_of(linear) for linear in linears]
    firsts = [low.first for low in found if low is not None]
    if not firsts:
        return None
    seconds = [
        torch.zeros(linear.out_features, 0) if low is None else low.second
        for linear, low in zip(linears, found, strict=True)
    ]
    blocks: Tensor = torch.block_diag(*seconds)  # type: ignore[no-untyped-call]
    return LowRank(torch.cat(firsts), blocks)
