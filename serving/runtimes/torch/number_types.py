"""Names of torch's types of numbers, as an artifact spells them."""

from __future__ import annotations

import torch


def name_of(dtype: torch.dtype) -> str:
    """Name a type, e.g. ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def type_of(name: str) -> torch.dtype:
    """Find the type of a name that ``name_of`` gave."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype
