"""Load a checkpoint as preparing does, and throw it away: whoever checks wants to know in time."""

from __future__ import annotations

import torch

from serving.runtimes.torch.decoder.architectures import check_architecture
from serving.runtimes.torch.pooling import AUTO_CLASSES
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Checkpoint, Head


def try_encoder(checkpoint: Checkpoint, head: Head) -> None:
    """Load an encoder.

    Raises:
        SourceError: It cannot be loaded.
    """
    load_pretrained(checkpoint, AUTO_CLASSES[type(head)], torch.float32)


def try_generator(checkpoint: Checkpoint, is_fused: bool) -> None:
    """Load a generator.

    Args:
        checkpoint: Its source.
        is_fused: Whether it will run in the decoder for CPUs.

    Raises:
        ConfigError: That decoder does not know the model.
        SourceError: It cannot be loaded.
    """
    model = load_pretrained(checkpoint, "AutoModelForCausalLM", torch.float32)
    if is_fused:
        check_architecture(model.config)
