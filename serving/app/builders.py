"""What ``serve deploy`` and KubeRay import: a builder for each kind of application.

Ray calls them inside the cluster, so sources are looked up and ``QUANTSERVE_…`` variables are read
there. ``deploy/serve_config.py`` writes their arguments from a configuration.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.serve import Application

from serving.app.applications import (
    gateway_application,
    node_options,
    quality_application,
    variant_application,
)
from serving.app.plan import make_plan
from serving.errors import ConfigError
from serving.settings import error_origin, make_config


def gateway(arguments: dict[str, Any]) -> Application:
    """Build the gateway.

    Args:
        arguments: A configuration, shaped like its file.

    Raises:
        ConfigError: It is wrong.
    """
    return gateway_application(make_config(arguments, "arguments of the gateway"))


def quality(arguments: dict[str, Any]) -> Application:
    """Build the quality process; arguments and errors are as for the gateway."""
    return quality_application(make_config(arguments, "arguments of the quality process"))


def variant(arguments: dict[str, Any]) -> Application:
    """Build one variant.

    Args:
        arguments: A configuration with one model, and ``variant``, the name of one of its variants.

    Raises:
        ConfigError: They are wrong.
        SourceError: The model's source is missing.
    """
    name = arguments.get("variant")
    document = {key: value for key, value in arguments.items() if key != "variant"}
    config = make_config(document, "arguments of a variant")
    with error_origin("arguments of a variant"):
        plan = make_plan(config, cluster_has_cuda=bool(ray.cluster_resources().get("GPU", 0)))
    chosen = [planned for planned in plan.variants if planned.variant.name == name]
    if len(chosen) != 1:
        raise ConfigError(
            f"arguments of a variant: variant: expected a variant of the one model, not {name!r}"
        )
    return variant_application(chosen[0], config, node_options(chosen[0]))
