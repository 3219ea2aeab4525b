"""The cache of a generator on a GPU: transformers' manager of batches, and its pages."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.utils import WorkloadHints
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

from serving.errors import ConfigError, MayPass
from serving.seams import OpenGeneratorRequest

PAGE_TOKENS = 256
"""Tokens of a page of the cache; flash attention takes no smaller ones."""

CHUNK_TOKENS = 512
"""Prompt tokens of a step beside those of the sequences that decode."""

MEMORY_SHARE = 0.8
"""Of the memory that the model leaves; the rest is for scores as wide as the vocabulary."""


def num_pages(num_tokens: int) -> int:
    """Pages that so many tokens of a sequence take."""
    return math.ceil(num_tokens / PAGE_TOKENS)


def make_manager(model: Any, request: OpenGeneratorRequest) -> ContinuousBatchingManager:
    """Have transformers batch a model continuously, with room for all that may run.

    Raises:
        ConfigError: It cannot batch this model.
    """
    num_sequences = request.max_running + 1
    is_half = model.dtype in (torch.bfloat16, torch.float16)
    config = ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=num_sequences * num_pages(request.max_tokens),
        max_batch_tokens=request.max_running + CHUNK_TOKENS,
        max_memory_percent=MEMORY_SHARE,
        # Below one sequence's room, the library lets go of pages that nobody uses now.
        safety_margin=1 / num_sequences,
        # Two steps at a time would choose a token before the one ahead of it is known here, and
        # transformers 5.23 fails when a sequence is cancelled while its page fills up.
        use_async_batching=False,
        seed=0,  # unused, but the library would draw one
        auto_switch_to_flash=is_half
        and (is_flash_attn_3_available() or is_flash_attn_2_available()),
    )
    hints = WorkloadHints(max_prompt_length=request.max_tokens, num_requests=request.max_running)
    try:
        manager: ContinuousBatchingManager = model.init_continuous_batching(
            GenerationConfig(do_sample=False, eos_token_id=-1), config, hints
        )
    except ValueError as error:
        raise ConfigError(f"transformers cannot batch this model continuously: {error}") from error
    return manager


def allocate(manager: ContinuousBatchingManager, request: OpenGeneratorRequest) -> tuple[int, int]:
    """Make the cache and, where the library uses them, graphs; return its pages and bytes.

    Raises:
        ConfigError: The model cannot be batched.
        MayPass: It does not fit now.
    """
    try:
        manager.warmup()
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise MayPass(
            f"a KV cache for {request.max_running} sequences of {request.max_tokens} tokens does "
            f"not fit beside the model; lower max_running_requests or max_tokens ({error})"
        ) from error
    except ValueError as error:
        raise ConfigError(f"transformers cannot batch this model continuously: {error}") from error
    assert manager.batch_processor is not None
    cache = manager.batch_processor.cache
    return cache.num_blocks, cache.cache_tensor.nbytes
