"""The sources of a configuration, each found once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.checkpoint import find_checkpoint, read_headers
from serving.config import ModelConfig, VariantConfig
from serving.lora_adapter import find_adapter
from serving.seams import Adapter, AdapterPlace, Checkpoint, WeightShape


@dataclass(frozen=True, slots=True)
class FoundSource:
    """A checkpoint, and what its files say without their weights.

    Attributes:
        checkpoint: Where it is.
        shapes: Its tensors.
        config: Its ``config.json``.
    """

    checkpoint: Checkpoint
    shapes: Sequence[WeightShape]
    config: Mapping[str, Any]


class Sources:
    """Finds the source of each variant, and its adapter: its own or the model's."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, bool], FoundSource] = {}
        self._adapters: dict[str, Path] = {}

    def find(self, model: ModelConfig, variant: VariantConfig) -> FoundSource:
        """The source of a variant.

        Raises:
            SourceError: It is missing or damaged, or quantized in a form that is not read.
        """
        place = variant.source or model.source
        key = place, model.trust_remote_code
        if key not in self._found:
            checkpoint = find_checkpoint(model.name, place, model.trust_remote_code)
            headers = read_headers(checkpoint)
            self._found[key] = FoundSource(checkpoint, headers.shapes, headers.config)
        return self._found[key]

    def find_adapter(self, model: ModelConfig, variant: VariantConfig) -> Adapter | None:
        """What is added to the weights of a variant; None if nothing is.

        Raises:
            SourceError: It is missing.
        """
        section = variant.adapter or model.adapter
        if section is None:
            return None
        if section.source not in self._adapters:
            self._adapters[section.source] = find_adapter(section.source)
        place: AdapterPlace = "beside" if section.place == "beside" else "merged"
        return Adapter(self._adapters[section.source], place)
