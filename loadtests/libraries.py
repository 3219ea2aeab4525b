"""What load tests need beside the service's own packages: the extra ``loadtest``."""

from __future__ import annotations

from importlib.util import find_spec

from serving.errors import ConfigError

MODULES = ("aiohttp", "markdown_it", "matplotlib")


def require_libraries() -> None:
    """See that all are installed, before it takes minutes until the last is needed.

    Raises:
        ConfigError: Some are missing; says how to install them.
    """
    if missing := [module for module in MODULES if find_spec(module) is None]:
        raise ConfigError(
            f"load tests need {', '.join(missing)}, which the extra loadtest brings: "
            "pip install 'quantserve[loadtest]' (in a checkout pip install -e '.[loadtest]')"
        )
