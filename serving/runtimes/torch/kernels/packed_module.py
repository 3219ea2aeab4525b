"""A module whose weights torch cannot see, because a kernel keeps them in a layout of its own."""

from __future__ import annotations

from torch import nn


class PackedModule(nn.Module):
    """Base of modules that hold weights outside of parameters and buffers."""

    def packed_bytes(self) -> int:
        """Return the bytes of the hidden weights, padding, scales and zero points included."""
        raise NotImplementedError

    def saved_bytes(self) -> int:
        """Return the bytes of what ``state_dict`` holds of them."""
        raise NotImplementedError
