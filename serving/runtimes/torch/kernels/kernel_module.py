"""A module that a conversion puts in place of a model's own, and that an artifact can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from torch import Tensor, nn

Setting = int | float | str | bool | None


class KernelModule(nn.Module):
    """Base of the modules that conversions make.

    A class is made from numbers in the module's own form, by its constructor; a class method
    ``of`` computes them from a module of the model. ``settings`` and ``stored_tensors`` give back
    what the constructor needs, which is what an artifact holds.

    Attributes:
        copied_tensors: Names of stored tensors of which a kernel keeps a packed copy instead.
    """

    copied_tensors: ClassVar[frozenset[str]] = frozenset()

    def settings(self) -> dict[str, Setting]:
        """Return the constructor's arguments that are no tensors."""
        return {}

    def stored_tensors(self) -> dict[str, Tensor]:
        """Return the constructor's arguments that are tensors; those that are None are left out.

        By default every buffer, under its own name: such tensors serve from where an artifact is
        mapped, and tied ones are stored once.
        """
        return dict(self.named_buffers())

    @classmethod
    def restore(cls, settings: Mapping[str, Setting], tensors: Mapping[str, Tensor]) -> Self:
        """Make the module anew from what ``settings`` and ``stored_tensors`` returned.

        Raises:
            ConfigError: This CPU cannot run it.
        """
        return cls(**tensors, **settings)

    def packed_bytes(self) -> int:
        """Return the bytes that a kernel keeps of the weights where torch cannot see them.

        Padding, scales and zero points included. Such a copy is the process's own.
        """
        return 0
