"""Which modules cannot be replaced, because the model reads their weights past them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from serving.runtimes.torch.model_inputs import as_tensors
from serving.seams import Arrays


def modules_read_directly(model: nn.Module, inputs: Arrays) -> frozenset[nn.Module]:
    """Run ``model`` and find linear layers and tables whose ``weight`` others read.

    Relative positions of DeBERTa are such a table: the model takes its ``weight`` and never calls
    it, so that a replacement, which has the numbers in another form, would not do.

    Args:
        model: A float32 encoder on the CPU.
        inputs: A batch for it.
    """
    candidates = [m for m in model.modules() if type(m) in (nn.Linear, nn.Embedding)]
    read: set[nn.Module] = set()
    with ExitStack() as stack, torch.no_grad():
        for module in candidates:
            stack.enter_context(_watched(module, read))
        model(**as_tensors(inputs, "cpu"))
    return frozenset(read)


def kept_note(model: nn.Module, kept: frozenset[nn.Module]) -> tuple[str, ...]:
    """Say for the manifest which modules stayed float, if any did."""
    names = [name for name, module in model.named_modules() if module in kept]
    return (f"kept in float, as the model reads them directly: {', '.join(names)}",) if kept else ()


@contextmanager
def _watched(module: nn.Module, read: set[nn.Module]) -> Iterator[None]:
    """Add ``module`` to ``read`` if its weight is taken while it does not run itself."""
    kind = type(module)
    running = False

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        nonlocal running
        running = True
        try:
            y: Tensor = kind.forward(self, x)
        finally:
            running = False
        return y

    def take(self: nn.Module) -> Tensor:
        if not running:
            read.add(self)
        weight = self._parameters["weight"]
        assert weight is not None
        return weight

    # A property of the class is found before nn.Module looks into its parameters.
    module.__class__ = type(kind.__name__, (kind,), {"forward": forward, "weight": property(take)})
    try:
        yield
    finally:
        module.__class__ = kind
