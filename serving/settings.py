"""Reads the YAML file, then ``QUANTSERVE_…`` variables, then the command line; later wins."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from serving.config import (
    ArtifactsConfig,
    Config,
    EvidenceConfig,
    ModelConfig,
    ReportsConfig,
    ServerConfig,
)
from serving.errors import ConfigError

ENV_PREFIX = "QUANTSERVE_"

Place = tuple[int | str, ...]
"""Path of a key, as pydantic gives it."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice, which YAML itself would drop silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(
                    f"not valid YAML here: line {line}: a key must be a word; quote braces"
                )
            if key_node.value in seen:
                raise ConfigError(f"line {line}: key {key_node.value!r} is given twice")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def load_config(path: Path, command_line: Mapping[str, Any] | None = None) -> Config:
    """Read and validate a configuration.

    Args:
        path: The YAML file.
        command_line: Values that override file and environment, shaped like the file.

    Raises:
        ConfigError: The file is missing, is not YAML, or holds something wrong; every problem
            is named by the path of its key.
    """
    return make_config(read_yaml(path, "models and server"), str(path), command_line)


def make_config(
    document: Mapping[str, Any], origin: str, command_line: Mapping[str, Any] | None = None
) -> Config:
    """Validate a configuration that was read already; the environment overrides it.

    Args:
        document: Shaped like the file.
        origin: Where it is from, for messages.
        command_line: As for ``load_config``.

    Raises:
        ConfigError: It holds something wrong.
    """
    _refuse_unknown_variables()
    given_by_variables: dict[str, Any] = {}

    class LayeredConfig(BaseSettings):
        model_config = SettingsConfigDict(
            env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
        )
        models: tuple[ModelConfig, ...]
        server: ServerConfig = ServerConfig()
        artifacts: ArtifactsConfig = ArtifactsConfig()
        evidence: EvidenceConfig = EvidenceConfig()
        reports: ReportsConfig = ReportsConfig()

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            given_by_variables.update(env_settings())
            return init_settings, env_settings, InitSettingsSource(settings_cls, dict(document))

    try:
        settings = LayeredConfig(**(command_line or {}))
        return Config(**{name: getattr(settings, name) for name in Config.model_fields})
    except ValidationError as error:
        given = _without(given_by_variables, command_line or {})
        raise ConfigError(_explain_by_origin(error, origin, given)) from None
    except SettingsError as error:
        raise ConfigError(f"environment variables {ENV_PREFIX}…: {error}") from None


@contextmanager
def error_origin(origin: str) -> Iterator[None]:
    """Put where a configuration is from before the message of a ``ConfigError`` about it."""
    try:
        yield
    except ConfigError as error:
        raise type(error)(f"{origin}: {error}") from None


def explain(error: ValidationError) -> str:
    """Say each problem of a pydantic error as ``key.path: problem``, one per line."""
    return "\n".join(text for _, text in _problems(error))


def _problems(error: ValidationError) -> list[tuple[Place, str]]:
    """Where each problem is, and ``key.path: problem``."""
    problems = []
    places = [problem["loc"] for problem in error.errors()]
    for problem in error.errors():
        place = problem["loc"]
        # A list whose only item is wrong also counts as too short.
        if problem["type"] == "too_short" and any(
            len(other) > len(place) and other[: len(place)] == place for other in places
        ):
            continue
        where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place)
        what = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            what = "unknown key"
        problems.append((place, f"{where.removeprefix('.') or '(top level)'}: {what}"))
    return problems


def _explain_by_origin(error: ValidationError, origin: str, by_variables: Mapping[str, Any]) -> str:
    """Say each problem with the variable that gave the value, or else after ``origin``."""
    of_variables, others = [], []
    for place, text in _problems(error):
        if _holds(by_variables, place):
            of_variables.append(f"environment variable {_variable_of(place)}: {text}")
        else:
            others.append(text)
    return "\n".join(([f"{origin}: " + "\n".join(others)] if others else []) + of_variables)


def _holds(given: Mapping[str, Any], place: Place) -> bool:
    """Whether these values have this place: sections are merged, and lists replaced as a whole."""
    value: Any = given
    for part in place:
        if not isinstance(value, Mapping):
            return True
        if part not in value:
            return False
        value = value[part]
    return bool(place) and not isinstance(value, Mapping)


def _variable_of(place: Place) -> str:
    """The variable of this place, or of the nearest section or list around it."""
    variables = {variable.upper(): variable for variable in os.environ}
    words = [str(part).upper() for part in place]
    for length in range(len(words), 0, -1):
        if (name := ENV_PREFIX + "__".join(words[:length])) in variables:
            return variables[name]
    return f"{ENV_PREFIX}…"


def _without(given: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    """These values, but for those that others override."""
    left = {}
    for key, value in given.items():
        over = stronger.get(key)
        if isinstance(value, Mapping) and isinstance(over, Mapping):
            left[key] = _without(value, over)
        elif key not in stronger:
            left[key] = value
    return left


def read_yaml(path: Path, example: str) -> dict[str, Any]:
    """Read a mapping from a file, each key once.

    Args:
        path: The file.
        example: Keys that one would expect in it, for the message if it is no mapping.

    Raises:
        ConfigError: It is missing, is not YAML, gives a key twice or holds something else.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected keys such as {example} at the top level")
    return {str(key): value for key, value in document.items()}


def _refuse_unknown_variables() -> None:
    known = Config.model_fields.keys()
    for variable in os.environ:
        if variable.upper().startswith(ENV_PREFIX):
            section = variable[len(ENV_PREFIX) :].split("__")[0].lower()
            if section not in known:
                raise ConfigError(
                    f"environment variable {variable}: {section!r} is not a section of the "
                    f"configuration; known: {', '.join(known)} (e.g. {ENV_PREFIX}SERVER__PORT)"
                )
