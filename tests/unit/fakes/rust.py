"""What libraries that are written in Rust raise."""

from __future__ import annotations


def rust_panic(message: str) -> BaseException:
    """Make what a panic arrives as: no ``Exception``, of a module that nobody can import."""
    kind = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    panic: BaseException = kind(message)
    return panic
