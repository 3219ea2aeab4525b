"""Load the transformers model of a checkpoint."""

from __future__ import annotations

from textwrap import shorten
from typing import Any

import torch
import transformers
from torch import nn

from serving.errors import SourceError
from serving.seams import Checkpoint

REASON_CHARACTERS = 200
"""Most of transformers' own words that are repeated; it lists every model that it knows."""


def load_pretrained(checkpoint: Checkpoint, auto_class: str, dtype: torch.dtype) -> nn.Module:
    """Build the transformers model of a checkpoint on the CPU, ready for inference.

    Args:
        checkpoint: The source that was found.
        auto_class: Name of the transformers Auto class, e.g. ``AutoModel``.
        dtype: Type of its parameters.

    Raises:
        SourceError: The checkpoint lacks weights that the task needs, or is no such model.
    """
    form: dict[str, Any] = (
        {"gguf_file": checkpoint.gguf_file} if checkpoint.gguf_file else {"use_safetensors": True}
    )
    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = getattr(transformers, auto_class).from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            trust_remote_code=checkpoint.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
            **form,
        )
    except ValueError as error:  # above all: no such class for this type of model
        reason = shorten(str(error), REASON_CHARACTERS, placeholder=" …")
        raise SourceError(f"{checkpoint.folder}: {auto_class} cannot load it: {reason}") from error
    missing = sorted(report["missing_keys"])
    if auto_class == "AutoModel":
        # Bare models may come without a pooler; no embedding uses it.
        missing = [name for name in missing if "pooler" not in name]
    if missing:
        raise SourceError(
            f"{checkpoint.folder}: no weights for {', '.join(missing[:3])}"
            f"{' …' if len(missing) > 3 else ''}, which {auto_class} needs"
        )
    model.eval().requires_grad_(False)
    assert isinstance(model, nn.Module)
    return model
