"""Whether a model's answers are the same with padding and without."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from serving.errors import ConfigError
from serving.runtimes.torch.model_inputs import as_tensors
from serving.runtimes.torch.pooling import pool
from serving.runtimes.torch.pretrained import REASON_CHARACTERS
from serving.seams import Arrays, Head, PerToken

TOLERANCE = 1e-3
"""Largest change of a float32 row, as a share of its length. Another order of sums makes 1e-6 of
it; a convolution that reads one place of padding some percents."""


def refuse_what_padding_changes(
    model: nn.Module, head: Head, example: Arrays, folder: Path
) -> None:
    """Compare the rows of a padded batch with those of each input alone.

    Args:
        model: A float32 encoder on the CPU.
        head: What becomes of its output.
        example: A batch with padding.
        folder: The checkpoint's, for the message.

    Raises:
        ConfigError: They differ, or the model does not run.
    """
    if isinstance(head, PerToken):
        return
    try:
        _compare(model, head, example, folder)
    except ConfigError:
        raise
    except Exception as error:  # whatever a model of other people's code raises
        reason = shorten(f"{type(error).__name__}: {error}", REASON_CHARACTERS, placeholder=" …")
        raise ConfigError(f"{folder}: as an encoder, the model does not run: {reason}") from error


def _compare(model: nn.Module, head: Head, example: Arrays, folder: Path) -> None:
    together = _rows(model, head, example)
    if not np.allclose(_rows(model, head, example), together, TOLERANCE, TOLERANCE):
        raise ConfigError(
            f"{folder}: {type(model).__name__} answers the same batch otherwise each time"
        )
    for index, row in enumerate(together):
        length = int(example["attention_mask"][index].sum())
        alone = {name: array[index : index + 1, :length] for name, array in example.items()}
        change = np.linalg.norm(_rows(model, head, alone)[0] - row)
        if not change <= TOLERANCE * np.linalg.norm(row):
            raise ConfigError(
                f"{folder}: padding changes what {type(model).__name__} answers, so that an answer "
                "would depend on what shares a batch"
            )


def _rows(model: nn.Module, head: Head, inputs: Arrays) -> NDArray[np.float32]:
    with torch.inference_mode():
        tensors: dict[str, Any] = as_tensors(
            {name: np.ascontiguousarray(array) for name, array in inputs.items()}, "cpu"
        )
        rows: NDArray[np.float32] = pool(head, model(**tensors), tensors["attention_mask"]).numpy()
    return rows
