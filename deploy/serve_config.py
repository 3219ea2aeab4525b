"""Serve's own configuration of a service, from one of quantserve's.

``python -m deploy.serve_config [CONFIG] > serve.yaml`` writes what ``serve deploy`` takes. Each
application carries its part of the configuration in its arguments: no node needs the file, and Ray
replaces those applications only whose part has changed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from serving.app.applications import (
    GATEWAY,
    NO_ACCESS_LOG,
    QUALITY,
    Place,
    proxy_timeout_s,
    variant_place,
)
from serving.config import Config, ModelConfig, VariantConfig
from serving.demo import DEMO_CONFIG
from serving.errors import ConfigError, QuantserveError
from serving.settings import explain, read_yaml

BUILDERS = "serving.app.builders"

IDENTITY = ("name", "recipe", "runtime")
"""What the replicas of a variant have to know of the reference."""


class _Dumper(yaml.SafeDumper):
    """YAML without references, and with text of several lines as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    )


_Dumper.add_representer(str, _text)


def to_yaml(document: Any) -> str:
    """A document as YAML, keys in their order."""
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=100))


def read_config(path: Path) -> Config:
    """Read a configuration as it is in its file, without the environment of this machine.

    Raises:
        ConfigError: Something is wrong with it, or it holds the key of the service.
    """
    try:
        config = Config.model_validate(read_yaml(path, "models and server"))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error)}") from None
    if config.server.api_key is not None:
        raise ConfigError(
            f"{path}: server.api_key: would stand in the manifest for all to read; remove it and "
            "set QUANTSERVE_SERVER__API_KEY where Ray runs"
        )
    return config


def serve_config(config: Config) -> dict[str, Any]:
    """The document that ``serve deploy`` and ``serveConfigV2`` of a RayService take."""
    whole, artifacts = _given(config), _given(config.artifacts)
    server = {key: value for key, value in _given(config.server).items() if key != "gateways"}
    variants = [
        _application(
            variant_place(model.name, variant.name),
            "variant",
            {
                "variant": variant.name,
                "models": [_for_variant(model, variant)],
                "server": server,
                **({"artifacts": artifacts} if artifacts else {}),
            },
        )
        for model in config.models
        for variant in model.variants
    ]
    return {
        "proxy_location": "EveryNode",
        "http_options": {
            "host": config.server.host,
            "port": config.server.port,
            "request_timeout_s": proxy_timeout_s(config),
        },
        "logging_config": _given(NO_ACCESS_LOG),
        "applications": [
            _application(GATEWAY, "gateway", whole),
            *variants,
            _application(QUALITY, "quality", whole),
        ],
    }


def _application(place: Place, builder: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": place.name,
        "route_prefix": place.route_prefix,
        "import_path": f"{BUILDERS}:{builder}",
        "logging_config": _given(NO_ACCESS_LOG),
        "args": arguments,
    }


def _for_variant(model: ModelConfig, variant: VariantConfig) -> dict[str, Any]:
    """The part of a model that the replicas of one variant read.

    Whatever stands in an application's arguments restarts it when it changes: so the settings of
    the other variants, but for one that drafts for it, and what only the gateway and the quality
    process read are left out.
    """
    section = _given(model)
    section["variants"] = [_given(variant)]
    drafts = variant.draft.variant if variant.draft else None
    section["variants"] += [_given(one) for one in model.variants if one.name == drafts]
    if model.reference not in (variant.name, drafts):
        [reference] = [_given(one) for one in model.variants if one.name == model.reference]
        identity = {key: reference[key] for key in IDENTITY if key in reference}
        section["variants"].append(identity)
    section.pop("default_variant", None)
    section.pop("slo_policy", None)
    section.pop("quality", None)
    if shadow := _given(model.quality.shadow):
        section["quality"] = {"shadow": shadow}
    return section


def _given(section: BaseModel) -> dict[str, Any]:
    return section.model_dump(mode="json", exclude_unset=True)


def main() -> int:
    """Print the document, or what is wrong with the configuration."""
    parser = argparse.ArgumentParser(prog="python -m deploy.serve_config", description=__doc__)
    parser.add_argument("config", nargs="?", type=Path, default=DEMO_CONFIG)
    try:
        document = serve_config(read_config(parser.parse_args().config))
    except QuantserveError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(to_yaml(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
