"""Has llama.cpp's converter write a checkpoint as a GGUF file, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch

from serving.errors import ConfigError
from serving.runtimes.llamacpp.decoder import LlamaCppDecoder
from serving.runtimes.llamacpp.library import FLOAT32
from serving.seams import Checkpoint, Segment

REASON_CHARACTERS = 200
"""Most of the converter's own words that are repeated."""

CHECKED_TOKENS = 96

TOLERANCE = 0.02
"""Largest change of a row of logits, as a share of its length, against transformers in float32.

llama.cpp reads GELU from a table in float16: 0.005 with random weights, and 1e-5 without GELU. A
scale of attention or a layer's kind that it takes for granted changes far more.
"""


def convert(checkpoint: Checkpoint, file: Path) -> tuple[str, ...]:
    """Write a GGUF file, in float32, of a folder of safetensors.

    Args:
        checkpoint: The folder.
        file: What to write.

    Returns:
        Remarks for whoever looks at the artifact.

    Raises:
        ConfigError: The converter cannot convert it; says why.
    """
    module = "serving.runtimes.llamacpp.conversion_process"
    command = [sys.executable, "-W", "ignore", "-m", module]
    command += [str(checkpoint.folder), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (ours)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it ended without a word"]
        reason = shorten(lines[-1], REASON_CHARACTERS, placeholder=" …")
        raise ConfigError(f"{checkpoint.folder}: llama.cpp's converter cannot convert it: {reason}")
    reason = json.loads(done.stdout.strip().splitlines()[-1])["tokenizer"]
    if reason is None:
        return ()
    return (f"the GGUF file has no tokenizer of its own, which is not needed here: {reason}",)


def check_converted(file: Path, model: Any, threads: int) -> None:
    """Compare a float32 file's logits with those of the model that it was made of.

    Raises:
        ConfigError: They differ: llama.cpp takes parts of the configuration for granted.
    """
    vocabulary = model.get_output_embeddings().out_features
    tokens = [token % vocabulary for token in range(CHECKED_TOKENS)]
    with torch.inference_mode():
        expected = model(torch.tensor([tokens])).logits[0].float().numpy()
    decoder = LlamaCppDecoder(file, 1, CHECKED_TOKENS, threads, cache_type=FLOAT32)
    found = decoder.step([Segment(0, 0, tokens, len(tokens))])
    change = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    if not change.max() <= TOLERANCE:
        raise ConfigError(
            f"converted to GGUF it computes something else: logits change by {change.max():.1%}. "
            "llama.cpp does not know all that its configuration says; serve it on another runtime"
        )
