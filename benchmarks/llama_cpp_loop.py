"""llama.cpp's own loop: its batch interface, and nothing of ours around it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.runtimes.llamacpp.artifact_files import MODEL
from serving.runtimes.llamacpp.library import NOT_FUSED, batch_of, load_library

LLAMA_CPP_CHOOSES = -1


class LlamaCppLoop:
    """A GGUF file of an artifact with room for some sequences.

    Args:
        folder: The artifact's folder of weights.
        num_sequences: As many as there may be.
        tokens: Most tokens of each.
        threads: Threads of the kernels.
        attention: ``llama_flash_attn_type``; llama.cpp's default lets it choose, and it chooses its
            fused attention. The rest is as it comes.
    """

    def __init__(
        self,
        folder: Path,
        num_sequences: int,
        tokens: int,
        threads: int,
        attention: int = NOT_FUSED,
    ) -> None:
        self._api = load_library().functions
        parameters = self._api.llama_model_default_params()
        file = str(folder / MODEL).encode()
        self._model = self._api.llama_model_load_from_file(file, parameters)
        self._vocabulary = self._api.llama_vocab_n_tokens(
            self._api.llama_model_get_vocab(self._model)
        )
        settings = self._api.llama_context_default_params()
        settings.n_seq_max, settings.n_ctx = num_sequences, num_sequences * tokens
        settings.n_threads = settings.n_threads_batch = threads
        settings.flash_attn_type = attention
        self._context = self._api.llama_init_from_model(self._model, settings)
        self._memory = self._api.llama_get_memory(self._context)
        self._sequences = np.arange(num_sequences, dtype=np.int32)
        self._ones = np.ones(tokens, np.int32)

    def generate(
        self, prompts: Sequence[Sequence[int]], new_tokens: int
    ) -> tuple[float, float, float]:
        """Continue each prompt greedily; an end-of-text token ends nothing.

        Returns:
            When it began, when all had their first token, and when it ended, by
            ``time.perf_counter``.
        """
        self.forget_from(0)
        started = time.perf_counter()
        last = []
        for sequence, prompt in enumerate(prompts):
            places = np.full(len(prompt), sequence)
            last += self._choose(np.array(prompt), np.arange(len(prompt)), places)
        first = time.perf_counter()
        places = np.arange(len(prompts))
        for step in range(new_tokens - 1):
            at = np.array([len(prompt) + step for prompt in prompts])
            last = self._choose(np.array(last), at, places)
        return started, first, time.perf_counter()

    def forget_from(self, position: int) -> None:
        """Drop what the sequences have from a position on."""
        for sequence in range(len(self._sequences)):
            self._api.llama_memory_seq_rm(self._memory, sequence, position, -1)

    def decode(self, tokens: Any, positions: Any, sequences: Any) -> NDArray[np.float32]:
        """Compute int arrays of tokens; logits of each sequence's last one, until the next call."""
        is_last = np.append(sequences[1:] != sequences[:-1], True).astype(np.int8)
        tokens, positions = tokens.astype(np.int32), positions.astype(np.int32)
        pointers = self._sequences.ctypes.data + 4 * sequences.astype(np.uint64)
        batch = batch_of(
            token=tokens, pos=positions, n_seq_id=self._ones, seq_id=pointers, logits=is_last
        )
        batch.n_tokens = len(tokens)
        assert self._api.llama_decode(self._context, batch) == 0
        shape = (int(is_last.sum()), self._vocabulary)
        return np.ctypeslib.as_array(self._api.llama_get_logits(self._context), shape)

    def _choose(self, tokens: Any, positions: Any, sequences: Any) -> list[int]:
        chosen: list[int] = self.decode(tokens, positions, sequences).argmax(1).tolist()
        return chosen
