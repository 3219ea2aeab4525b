"""What every command begins with that reads a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.app.plan import Plan, make_plan
from serving.config import Config
from serving.demo import DEMO_CONFIG
from serving.settings import error_origin, load_config


def load_plan(
    config: Path | None,
    command_line: Mapping[str, Any] | None = None,
    cluster_has_cuda: bool | None = None,
) -> tuple[Config, Plan]:
    """Read a configuration, and find what it names.

    Args:
        config: The YAML file; the demo's, with its models made ready, if None.
        command_line: Values that override it, shaped like the file.
        cluster_has_cuda: See ``make_plan``.

    Raises:
        ConfigError: Something in it is wrong; names the file.
        SourceError: A source is missing or damaged; likewise.
    """
    if config is None:
        from serving.demo.prepare import prepare

        prepare()
        config = DEMO_CONFIG
    settings = load_config(config, command_line)
    with error_origin(str(config)):
        return settings, make_plan(settings, cluster_has_cuda)
