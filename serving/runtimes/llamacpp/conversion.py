"""Has llama.cpp's converter write a checkpoint as a GGUF file, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import shorten
from typing import Literal

import torch

from serving.checkpoint import weight_shapes
from serving.errors import ConfigError, SourceError
from serving.runtimes.torch.lean_transformers import no_init_weights, transformers
from serving.seams import Checkpoint

REASON_CHARACTERS = 200
"""Most of the converter's own words that are repeated."""


def convert(checkpoint: Checkpoint, file: Path, numbers: Literal["f32", "f16"]) -> tuple[str, ...]:
    """Write a GGUF file of a folder of safetensors.

    Args:
        checkpoint: The folder.
        file: What to write.
        numbers: Type of the matrices; vectors are float32.

    Returns:
        Remarks for whoever looks at the artifact.

    Raises:
        SourceError: Weights are missing.
        ConfigError: The converter cannot convert it; says why.
    """
    _check_complete(checkpoint)
    module = "serving.runtimes.llamacpp.conversion_process"
    command = [sys.executable, "-W", "ignore", "-m", module]
    command += [str(checkpoint.folder), str(file), numbers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (ours)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it ended without a word"]
        reason = shorten(lines[-1], REASON_CHARACTERS, placeholder=" …")
        raise ConfigError(f"{checkpoint.folder}: llama.cpp's converter cannot convert it: {reason}")
    reason = json.loads(done.stdout.strip().splitlines()[-1])["tokenizer"]
    if reason is None:
        return ()
    return (f"the GGUF file has no tokenizer of its own, which is not needed here: {reason}",)


def _check_complete(checkpoint: Checkpoint) -> None:
    """Raise ``SourceError`` unless every parameter has weights: the converter looks at no list."""
    try:
        config = transformers.AutoConfig.from_pretrained(
            checkpoint.folder,
            local_files_only=True,
            trust_remote_code=checkpoint.trust_remote_code,
        )
        with torch.device("meta"), no_init_weights():
            model = transformers.AutoModelForCausalLM.from_config(
                config, trust_remote_code=checkpoint.trust_remote_code
            )
    except ValueError as error:
        reason = shorten(str(error), REASON_CHARACTERS, placeholder=" …")
        raise SourceError(
            f"{checkpoint.folder}: no model that continues texts: {reason}"
        ) from error
    stored = {shape.name for shape in weight_shapes(checkpoint)}
    base = f"{model.base_model_prefix}."
    tied = set(model.all_tied_weights_keys)
    missing = sorted(
        name
        for name, _ in model.named_parameters()
        if name not in tied and not {name, name.removeprefix(base)} & stored
    )
    if missing:
        raise SourceError(
            f"{checkpoint.folder}: no weights for {', '.join(missing[:3])}"
            f"{' …' if len(missing) > 3 else ''}"
        )
