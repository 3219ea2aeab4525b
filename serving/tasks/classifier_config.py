"""What a checkpoint's ``config.json`` says of its classifier; read without transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.errors import ConfigError
from serving.seams import Checkpoint
from serving.tasks.text_architectures import require_served

AUTO_CLASS = "AutoModelForSequenceClassification"


def require_classifier(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` unless the weights are of a classifier that can be served.

    Those of something else would get a random one.

    Args:
        checkpoint: For the message.
        config: Its ``config.json``, or what transformers makes of it.
    """
    require_served(checkpoint, config, is_classifier=True)
    architectures = config.get("architectures") or []
    if architectures and not _has_own_code(config):
        name = str(architectures[0])
        if "SequenceClassification" not in name:
            raise ConfigError(
                f"{checkpoint.folder}: holds a {name}, which has no classifier; expected a "
                "…ForSequenceClassification"
            )


def require_one_logit(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` unless the checkpoint is a classifier with one logit; as above."""
    require_classifier(checkpoint, config)
    names = _label_map(checkpoint, config)
    if names is not None and len(names) != 1:
        raise ConfigError(
            f"{checkpoint.folder}: its classifier has {len(names)} logits; a cross-encoder has one "
            "(num_labels: 1). Serve it as task classification"
        )


def label_names(checkpoint: Checkpoint, config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the logits, in the order of their numbers, which may start anywhere.

    Returns:
        No two alike; None where only the checkpoint's own code knows them.

    Raises:
        ConfigError: They are not clear.
    """
    names = _label_map(checkpoint, config)
    if names is None:
        return None
    where = f"{checkpoint.folder / 'config.json'}: id2label"
    if not names or list(names) != list(range(min(names), min(names) + len(names))):
        raise ConfigError(
            f"{where}: numbers {', '.join(map(str, names))}; expected one label for each of 0, 1, …"
        )
    labels = [f"LABEL_{number}" if name is None else str(name) for number, name in names.items()]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(
            f"{where}: two labels are called {', '.join(map(repr, twice))}, so that an answer "
            "could mean either; give each a name of its own"
        )
    return tuple(labels)


def _label_map(checkpoint: Checkpoint, config: Mapping[str, Any]) -> dict[int, Any] | None:
    """Numbers and names; transformers writes none where they are its two default ones."""
    stated = config.get("id2label")
    if stated is None and "num_labels" not in config and _has_own_code(config):
        return None
    try:
        if stated is None:
            return dict.fromkeys(range(int(config.get("num_labels", 2))))
        return dict(sorted((int(number), name) for number, name in stated.items()))
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{checkpoint.folder / 'config.json'}: id2label or num_labels: {error}"
        ) from None


def _has_own_code(config: Mapping[str, Any]) -> bool:
    return AUTO_CLASS in (config.get("auto_map") or {})
