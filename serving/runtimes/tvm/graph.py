"""Builds a graph, kernel by kernel, and compiles it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tvm
from torch import Tensor
from tvm import relax, tirx
from tvm.support.cc import get_cc

from serving.errors import ConfigError
from serving.runtimes.tvm.graph_files import EIGHT, FUNCTION
from serving.runtimes.tvm.schedules import schedule

_EXPRESSION = "expression"
"""Attribute of a kernel's function: the name of its expression."""


class KernelGraph:
    """A function of inputs (rows, eights, 8), of any number of rows and eights, and of numbers.

    Attributes:
        numbers: By name, in the order in which the function takes them.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, Tensor] = {}
        self._builder = relax.BlockBuilder()
        self._inputs: list[Any] = []
        self._constants: list[Any] = []
        self._tokens = (tirx.Var("rows", "int64"), tirx.Var("eights", "int64"), EIGHT)

    def input(self, name: str, dtype: str) -> Any:
        """Add an input; the function takes them in the order in which they are added."""
        self._inputs.append(relax.Var(name, relax.TensorType(self._tokens, dtype)))
        return self._inputs[-1]

    def constant(self, name: str, tensor: Tensor) -> Any:
        """Add numbers."""
        self.numbers[name] = tensor.detach().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        self._constants.append(relax.Var(name, relax.TensorType(tuple(tensor.shape), dtype)))
        return self._constants[-1]

    def apply(self, expression: Callable[..., Any], values: Sequence[Any], *settings: Any) -> Any:
        """Add a kernel: an expression of ``kernels``, which takes its settings, then values."""
        name = expression.__name__
        return self._builder.emit_te(
            partial(expression, *settings),
            *values,
            primfunc_name_hint=name,
            primfunc_attrs={_EXPRESSION: name},
        )

    def write(self, compute: Callable[[], Any]) -> None:
        """Make the function of what ``compute`` adds; it returns the only output."""
        with self._builder.function(FUNCTION):
            with self._builder.dataflow():
                output = self._builder.emit_output(compute())
            self._builder.emit_func_output(output, [*self._inputs, *self._constants])

    def compile(self, target: Mapping[str, str], file: Path) -> None:
        """Write the function as a library.

        Args:
            target: TVM's words for the CPU.
            file: The library.

        Raises:
            ConfigError: There is nothing to link it with.
        """
        if get_cc() is None:
            raise ConfigError(
                "what TVM compiles is linked by a C compiler, and none was found: install gcc or "
                "clang, or prepare on a machine that has one"
            )
        module = self._builder.get()
        for place, function in module.functions_items():
            name = function.attrs.get(_EXPRESSION)
            if name is not None:
                module.update_func(place, schedule(name, function))
        tvm.compile(module, target=tvm.target.Target(dict(target))).export_library(str(file))
