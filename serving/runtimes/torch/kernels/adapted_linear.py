"""A quantized linear layer with a LoRA adapter beside it, in bfloat16 (CPU)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import Tensor
from torch.nn import functional

from serving.runtimes.torch.kernels.int4_linear import Int4Linear
from serving.runtimes.torch.kernels.kernel_module import KernelModule, Setting

_BASE = "base."
"""What names of the base's tensors and settings begin with, among those of the whole."""


class AdaptedLinear(KernelModule):
    """``y = base(x) + (x @ A^T) @ B^T``, as QLoRA trains it (arXiv:2305.14314, equation 5).

    A class for each kind of base, since an artifact names classes.

    Args:
        base: The quantized layer, (in) to (out).
        first: A, bfloat16 (rank, in).
        second: B, its scale multiplied in, bfloat16 (out, rank).

    Attributes:
        base_class: Of the base.
    """

    base_class: ClassVar[type[KernelModule]]

    first: Tensor
    second: Tensor

    def __init__(self, base: KernelModule, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.base = base
        self.register_buffer("first", first)
        self.register_buffer("second", second)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out) in the type that the base computes in."""
        y: Tensor = self.base(x)
        within = functional.linear(x, self.first.to(x.dtype))
        return y + functional.linear(within, self.second.to(x.dtype))

    def settings(self) -> dict[str, Setting]:
        return {_BASE + name: value for name, value in self.base.settings().items()}

    def stored_tensors(self) -> dict[str, Tensor]:
        of_base = {_BASE + name: one for name, one in self.base.stored_tensors().items()}
        return {"first": self.first, "second": self.second, **of_base}

    @classmethod
    def restore(cls, settings: Mapping[str, Setting], tensors: Mapping[str, Tensor]) -> Self:
        base = cls.base_class.restore(_of_base(settings), _of_base(tensors))
        return cls(base, tensors["first"], tensors["second"])

    def packed_bytes(self) -> int:
        return self.base.packed_bytes()


class AdaptedInt4Linear(AdaptedLinear):
    """Beside ``Int4Linear``, which keeps no tensor in a layout of its own."""

    base_class = Int4Linear


def _of_base(named: Mapping[str, Setting] | Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        name.removeprefix(_BASE): value for name, value in named.items() if name.startswith(_BASE)
    }
