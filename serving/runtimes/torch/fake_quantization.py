"""A second view of a float model that computes on a recipe's grids, so that training sees them.

Numbers are rounded by the functions that the recipe's conversion rounds with, in float32; gradients
go through every rounding as if it were not there (the straight-through estimator,
arXiv:1308.3432).
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from serving.recipes.int4 import Int4Options
from serving.runtimes.torch.conversions import int4, int8_layers
from serving.runtimes.torch.conversions.direct_reads import modules_read_directly
from serving.runtimes.torch.conversions.input_importance import measure_input_importance
from serving.runtimes.torch.conversions.input_moments import InputMoments
from serving.runtimes.torch.conversions.module_swap import swap_modules
from serving.runtimes.torch.int4_methods import round_linear
from serving.runtimes.torch.kernels.fbgemm_weights import quantize_per_output, weight_steps
from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
from serving.runtimes.torch.kernels.int8_linear import INPUT_SCALE, LEAST_LARGEST
from serving.runtimes.torch.packed_sizes import KEPT_IN_FLOAT, legal_group_size
from serving.seams import Arrays

RECIPES = ("int8-dynamic", "int4")
"""Those that a model can be trained for, with their default options."""


class RoundedLinear(nn.Module):
    """A linear layer that computes with what its recipe would make of a float one's weight.

    Args:
        linear: Its parameters are this layer's, too, and stay as precise as they are.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    @abstractmethod
    def rounded_weight(self) -> Tensor:
        """What the weight is rounded to, (out, in)."""

    def rounded_input(self, x: Tensor) -> Tensor:
        """What inputs (..., in) are rounded to: by default, nothing."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (..., in) to float32 (..., out)."""
        with torch.no_grad():
            weight, rounded = self.rounded_weight(), self.rounded_input(x)
        return functional.linear(
            x if rounded is x else _straight_through(x, rounded),
            _straight_through(self.linear.weight, weight),
            self.linear.bias,
        )


class RoundedInt8(RoundedLinear):
    """``Int8Linear``'s numbers: a scale per output and one per token."""

    def rounded_weight(self) -> Tensor:
        """On as many steps as this CPU's kernels sum without saturating."""
        codes, scale = quantize_per_output(self.linear.weight, weight_steps())
        return codes * scale[:, None]

    def rounded_input(self, x: Tensor) -> Tensor:
        """On 127 steps up to the largest of each token."""
        largest = x.abs().amax(dim=-1, keepdim=True).clamp_min_(LEAST_LARGEST)
        return (x / largest / INPUT_SCALE).round_() * INPUT_SCALE * largest


class RoundedInt4(RoundedLinear):
    """``Int4Linear``'s weights, on the grids that the recipe chooses for them as they are now.

    Grids have to be chosen anew for each step: kept for a few, they have weights learn where just
    these round them, which the next ones take away.

    Args:
        linear: As of ``RoundedLinear``.
        group_size: Inputs that share a scale.

    Attributes:
        squares: float32 (in,), mean square of each input, by which errors count.
    """

    squares: Tensor

    def __init__(self, linear: nn.Linear, group_size: int) -> None:
        super().__init__(linear)
        self.group_size = group_size
        self.register_buffer("squares", torch.ones(linear.in_features))

    def rounded_weight(self) -> Tensor:
        """What codes, scales and offsets stand for."""
        found = round_linear(
            self.linear, InputMoments(self.squares), self.group_size, Int4Options()
        )
        scales, offsets = (one.float().unsqueeze(2) for one in (found.scales, found.offsets))
        codes = found.codes.view(*found.scales.shape, self.group_size).float()
        return torch.addcmul(offsets, codes.sub_(8), scales).view_as(self.linear.weight)


class RoundedView:
    """What a float encoder answers once a recipe has rounded it; both have the same parameters.

    Train the parameters through ``rounded``, and keep ``model``: the recipe makes of it what
    ``rounded`` computes. Tables of embeddings are frozen: ``rounded`` has them in 8 bits.

    Args:
        model: A float32 encoder on the CPU.
        recipe: One of ``RECIPES``.
        example: A batch for it, in which ``int4`` looks how strongly inputs are driven.
    """

    def __init__(self, model: nn.Module, recipe: str, example: Arrays) -> None:
        assert recipe in RECIPES
        self._model, self._example = model, example
        kept = modules_read_directly(model, example)
        kept_weights = {id(module.weight) for module in kept}
        shared: dict[int, Any] = {id(one): one for one in model.parameters()}
        self.rounded: nn.Module = copy.deepcopy(model, shared)
        convert_linear = _to_int8 if recipe == "int8-dynamic" else _to_int4

        def convert(module: nn.Module) -> nn.Module | None:
            if id(getattr(module, "weight", None)) in kept_weights:
                return None
            if type(module) is nn.Embedding:
                return Int8Embedding.of(module, torch.float32)
            return convert_linear(module)

        keep = KEPT_IN_FLOAT if recipe == "int8-dynamic" else frozenset[str]()
        swap_modules(self.rounded, convert, keep)
        self.look_at_inputs()

    def look_at_inputs(self) -> None:
        """Measure anew how strongly the inputs of layers are driven, where the recipe asks that."""
        layers = {
            id(module.linear.weight): module
            for module in self.rounded.modules()
            if isinstance(module, RoundedInt4)
        }
        if not layers:
            return
        for module, squares in measure_input_importance(self._model, self._example).items():
            if (layer := layers.get(id(module.weight))) is not None:
                layer.squares = squares


def _to_int8(module: nn.Module) -> nn.Module | None:
    return RoundedInt8(module) if int8_layers.is_quantized(module) else None


def _to_int4(module: nn.Module) -> nn.Module | None:
    if type(module) is not nn.Linear:
        return None
    size = legal_group_size(module.in_features, Int4Options().group_size)
    return RoundedInt4(module, size) if size and int4.is_quantized(module, size) else None


def _straight_through(exact: Tensor, rounded: Tensor) -> Tensor:
    passed: Tensor = _StraightThrough.apply(exact, rounded)  # type: ignore[no-untyped-call]
    return passed


class _StraightThrough(torch.autograd.Function):
    """The second argument, with the gradient of the first."""

    @staticmethod
    def forward(ctx: Any, exact: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
