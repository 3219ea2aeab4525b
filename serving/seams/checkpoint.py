"""What is known of a checkpoint before any of it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CheckpointFormat = Literal["safetensors", "gguf"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A source that was found: a folder of safetensors files, or one GGUF file.

    Attributes:
        folder: The folder that holds config, tokenizer and weights (for GGUF: the file's folder).
        gguf_file: Name of the GGUF file inside ``folder``, or None for safetensors.
        trust_remote_code: Whether the config allows Python code that comes with the checkpoint.
    """

    folder: Path
    gguf_file: str | None = None
    trust_remote_code: bool = False

    @property
    def format(self) -> CheckpointFormat:
        """How its weights are written."""
        return "safetensors" if self.gguf_file is None else "gguf"


AdapterPlace = Literal["merged", "beside"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that was found.

    Attributes:
        folder: Holds its settings and its weights.
        place: ``merged`` into the weights before a recipe makes its numbers, or in bfloat16
            ``beside`` them.
    """

    folder: Path
    place: AdapterPlace


@dataclass(frozen=True, slots=True)
class WeightShape:
    """One tensor of a checkpoint, as its header describes it.

    Attributes:
        name: Parameter name, e.g. ``encoder.layer.0.attention.self.query.weight``.
        shape: Its dimensions.
        is_embedding: Whether it is an embedding table.
        dtype: Type of its numbers as the file names it, e.g. ``F32``, ``BF16``, ``I64``, ``Q4_1``.
        stored_bytes: What a quantized layer's integers, scales and zeros take in the file; None of
            any other tensor.
        is_flat: Whether the header tells only how many numbers there are: then ``shape`` is a guess
            at how they lie, good enough for sizes.
    """

    name: str
    shape: tuple[int, ...]
    is_embedding: bool
    dtype: str = "F32"
    stored_bytes: int | None = None
    is_flat: bool = False
