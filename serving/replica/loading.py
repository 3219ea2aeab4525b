"""Builds everything that one replica holds, without Ray; encoders and generators differ."""

from __future__ import annotations

from serving.config import ModelConfig, ServerConfig, VariantConfig
from serving.replica.encoder.loading import hold_encoder
from serving.replica.generator.loading import hold_generator
from serving.replica.loaded_variant import Held
from serving.seams import Checkpoint
from serving.tasks import GENERATION_TASKS


async def hold(
    model: ModelConfig,
    variant: VariantConfig,
    checkpoint: Checkpoint,
    server: ServerConfig,
    replica: str,
) -> Held:
    """Load one variant, run it once and wire it, for use in the running event loop.

    Args:
        model: The model's configuration.
        variant: The variant's configuration.
        checkpoint: The source that was found.
        server: The HTTP side's; a forward pass that outlasts several deadlines is stuck.
        replica: Value of the ``replica`` label.

    Raises:
        ConfigError: The machine cannot run the variant, or an option is wrong.
    """
    hold_kind = hold_generator if model.task in GENERATION_TASKS else hold_encoder
    return await hold_kind(model, variant, checkpoint, server, replica)
