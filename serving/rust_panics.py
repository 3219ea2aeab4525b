"""Panics of libraries that are written in Rust, as tokenizers and safetensors are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class RustPanic(Exception):
    """A library gave up on what it was given."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raise a panic within as ``RustPanic``.

    A panic is no ``Exception``, and of a class that no module exports; but unlike
    ``KeyboardInterrupt`` it ends the call that it comes from and nothing else: it is an answer to
    what was given.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise RustPanic(str(error)) from error
