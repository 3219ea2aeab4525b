"""A warning that one of our modules causes fails a test; those inside of libraries do not."""

from __future__ import annotations

import warnings
from typing import Any

import pytest


def warn_in(module: str) -> None:
    """Warn as code of a module would."""
    exec("import warnings; warnings.warn('old', FutureWarning)", {"__name__": module})


@pytest.mark.parametrize(
    "module",
    ["serving", "serving.routes.edge", "loadtests.runner", "deploy.x", "benchmarks.x", __name__],
)
def test_our_own_are_errors(module: str) -> None:
    with pytest.raises(FutureWarning, match="old"):
        warn_in(module)


def test_what_a_library_says_of_our_call_is_an_error() -> None:
    """By ``stacklevel`` it says whose call it means."""
    library: dict[str, Any] = {"__name__": "torch.nn"}
    exec("import warnings\ndef call(): warnings.warn('old', FutureWarning, 2)", library)
    with pytest.raises(FutureWarning, match="old"):
        library["call"]()


@pytest.mark.parametrize("module", ["torch.nn", "servings", "pytest", "my.serving"])
def test_those_of_libraries_are_not(module: str) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warn_in(module)
    assert [str(warning.message) for warning in seen] == ["old"]
