"""Whether a variant's source is one for its task, and can be compared with the reference's."""

from __future__ import annotations

from serving.app.sources import FoundSource, Sources
from serving.config import ModelConfig, VariantConfig
from serving.errors import ConfigError
from serving.tasks import TASKS


def check_source(
    where: str, model: ModelConfig, variant: VariantConfig, source: FoundSource, sources: Sources
) -> None:
    """Look at a source's small files before anything of it is loaded.

    Args:
        where: Key of the source, for messages.
        model: The model's configuration.
        variant: One of its variants.
        source: The variant's source.
        sources: Finds the reference's.

    Raises:
        ConfigError: The source is not one for the task, or its answers could not be compared with
            the reference's.
        SourceError: The reference's source is missing or damaged.
    """
    task = TASKS[model.task]
    if task.check is not None:
        try:
            task.check(source.checkpoint, source.config)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    if variant.name == model.reference or task.why_not_comparable is None:
        return
    reference = next(other for other in model.variants if other.name == model.reference)
    expected = sources.find(model, reference)
    if expected.checkpoint == source.checkpoint:
        return
    try:
        reason = task.why_not_comparable(source.checkpoint, expected.checkpoint)
    except ConfigError as error:
        raise ConfigError(f"{where}: cannot be compared with the reference: {error}") from None
    if reason is not None:
        raise ConfigError(
            f"{where}: answers could not be compared with those of the reference "
            f"{model.reference!r}: {source.checkpoint.folder} has {reason}. Name another form of "
            "the reference's checkpoint, or serve this one as a model of its own"
        )
