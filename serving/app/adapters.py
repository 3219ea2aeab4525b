"""Whether a variant's adapter was made for its source, and what it takes beside the weights."""

from __future__ import annotations

from serving.app.sources import FoundSource, Sources
from serving.config import ModelConfig, VariantConfig
from serving.errors import SourceError
from serving.lora_adapter import read_changes
from serving.seams import Adapter


def plan_adapter(
    key: str, model: ModelConfig, variant: VariantConfig, source: FoundSource, sources: Sources
) -> Adapter | None:
    """Find a variant's adapter, and look at its headers and its base's; None without one.

    Args:
        key: Path of the variant's key, for messages.
        model: The model's configuration.
        variant: One of its variants.
        source: The variant's source.
        sources: Finds adapters.

    Raises:
        SourceError: It is missing, damaged, of a kind that is not read, or made for another model.
    """
    where = f"{key}.adapter" if variant.adapter else f"{key.partition('.')[0]}.adapter"
    try:
        adapter = sources.find_adapter(model, variant)
        # Of other formats the runtimes' table says that they take none.
        if adapter is not None and source.checkpoint.format == "safetensors":
            read_changes(adapter.folder, source.shapes)
    except SourceError as error:
        raise SourceError(f"{where}: {error}") from None
    return adapter


def bytes_beside(adapter: Adapter | None, source: FoundSource) -> int:
    """Size of the factors that stay beside the weights, in bfloat16; 0 where they are merged."""
    if adapter is None or adapter.place == "merged":
        return 0
    updates = read_changes(adapter.folder, source.shapes).updates
    return sum(2 * update.rank * sum(update.shape) for update in updates)
