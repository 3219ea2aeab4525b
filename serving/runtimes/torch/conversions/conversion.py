"""What torch must know of a recipe to make its numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel

from serving.seams import DeviceName, PrepareRequest, WeightShape

if TYPE_CHECKING:
    from torch import nn

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.adapted_linear import AdaptedLinear
    from serving.runtimes.torch.kernels.kernel_module import KernelModule

WeightBytes = Callable[[WeightShape, BaseModel, DeviceName], int]


def nothing_missing(device: DeviceName) -> str | None:
    """Every machine can run it."""
    return None


@dataclass(frozen=True, slots=True)
class Conversion:
    """How torch makes the numbers of one recipe: an entry of ``CONVERSIONS``.

    An entry's module imports no torch; its functions do when they are called.

    Attributes:
        weight_bytes: Packed size of one tensor of an encoder's checkpoint.
        kernels: Finds the classes of every module that ``convert_encoder`` or
            ``generator_numerics`` may put into a model; an artifact can hold no others.
        convert_encoder: Converts a float32 encoder on the CPU in place, for the CPU; returns notes
            for the artifact's manifest. None if the recipe makes no encoders. Raises
            ``ConfigError`` if the model does not allow it.
        move_to_gpu: Moves a float32 model to a device in the recipe's numbers, and returns it. The
            device is ``cuda``, or the CPU where it stands in for that. None if it cannot run there.
        why_not: What a machine lacks for it on a device, in words that say what would do; None if
            nothing.
        generator_numerics: How it makes the parts of a generator on the CPU; None if it makes none.
        generator_weight_bytes: Likewise ``weight_bytes`` of a generator; None if they are the same.
        adapted_linear: Finds the class of its linear layers with an adapter beside them, on the
            CPU; None if it has none.
        kv_number_bytes: Size of a number in a generator's cache of keys and values.
    """

    weight_bytes: WeightBytes
    kernels: Callable[[], tuple[type[KernelModule], ...]]
    convert_encoder: Callable[[nn.Module, PrepareRequest], tuple[str, ...]] | None = None
    move_to_gpu: Callable[[nn.Module, BaseModel, str], nn.Module] | None = None
    why_not: Callable[[DeviceName], str | None] = nothing_missing
    generator_numerics: Callable[[BaseModel], Numerics] | None = None
    generator_weight_bytes: WeightBytes | None = None
    adapted_linear: Callable[[], type[AdaptedLinear]] | None = None
    kv_number_bytes: int = 2
