"""A decoder on llama.cpp: one ``llama_decode`` for whatever tokens a step brings (CPU)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.errors import ConfigError, MayPass
from serving.runtimes.llamacpp.artifact_files import WINDOW_KEY
from serving.runtimes.llamacpp.empty_buffers import return_empty_buffers
from serving.runtimes.llamacpp.library import (
    FLOAT16,
    FLOAT32,
    MAPPED,
    NOT_FUSED,
    batch_of,
    load_library,
)
from serving.runtimes.process_footprint import measure_process
from serving.seams import DeviceName, Footprint, Segment

MOST_STEP_TOKENS = 512
"""Tokens that are computed at once; a step that brings more is computed in parts."""

CACHE_NUMBER_BYTES = {FLOAT32: 4, FLOAT16: 2}

_TO_THE_END = -1

READ_TOGETHER = 256
"""Places of a slot that attention reads at once, whether they are used or not."""


class LlamaCppDecoder:
    """A GGUF file behind ``num_slots`` sequences of llama.cpp, each with its own part of the cache.

    Args:
        file: The GGUF file; weights that no kernel wants in another order are mapped.
        num_slots: Sequences that the cache holds.
        slot_tokens: Most tokens of each.
        threads: Threads of the kernels, until told otherwise.
        cache_type: Numbers of cached keys and values, one of ``CACHE_NUMBER_BYTES``.

    Raises:
        ConfigError: llama.cpp would attend to more than the model does.
        MayPass: llama.cpp cannot open the file; it says why in words alone.
    """

    device: DeviceName = "cpu"

    def __init__(
        self,
        file: Path,
        num_slots: int,
        slot_tokens: int,
        threads: int,
        cache_type: int = FLOAT16,
    ) -> None:
        self.num_slots, self.slot_tokens = num_slots, slot_tokens
        self._cache_type = cache_type
        library = load_library()
        self._api = library.functions
        parameters = self._api.llama_model_default_params()
        parameters.load_mode = MAPPED
        self._model = self._api.llama_model_load_from_file(str(file).encode(), parameters)
        if not self._model:
            raise MayPass(f"llama.cpp cannot load {file.name}: {library.reason()}")
        self._vocabulary: int = self._api.llama_vocab_n_tokens(
            self._api.llama_model_get_vocab(self._model)
        )
        self._check_window()
        self._threads = threads
        with return_empty_buffers(library.base):
            self._context = self._open_context()
        if not self._context:
            raise MayPass(f"llama.cpp cannot open {file.name}: {library.reason()}")
        self._memory = self._api.llama_get_memory(self._context)
        self._held = [0] * num_slots
        self._most_held = [0] * num_slots
        """Places of each slot that were written since it was last wiped, or empty."""
        self._dirty: set[int] = set()
        """Slots whose cache has numbers that are NaN or infinite."""
        self._sequences = np.arange(num_slots, dtype=np.int32)

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._api.llama_free(self._context)
        if getattr(self, "_model", None):
            self._api.llama_model_free(self._model)

    @property
    def kv_cache_bytes(self) -> int:
        tokens = self.num_slots * int(self._api.llama_n_ctx_seq(self._context))
        layers, heads = self._count("n_layer"), self._count("n_head_kv")
        width = self._count("n_embd") // self._count("n_head")
        widths = sum(self._head_width(part, width) for part in ("key", "value"))
        return tokens * layers * heads * widths * CACHE_NUMBER_BYTES[self._cache_type]

    def footprint(self) -> Footprint:
        return measure_process(int(self._api.llama_model_size(self._model)))

    def use_cores(self, cores: Sequence[int]) -> None:
        if len(cores) != self._threads:
            self._threads = len(cores)
            self._api.llama_set_n_threads(self._context, self._threads, self._threads)

    def step(self, segments: Sequence[Segment]) -> NDArray[np.float32]:
        self._forget(segments)
        ends = np.cumsum([segment.num_logits for segment in segments])
        logits = np.empty((int(ends[-1]), self._vocabulary), np.float32)
        for group in computed_together(segments):
            computed = self._decode([segments[i] for i in group])
            for i, rows in zip(group, computed, strict=True):
                # In the last row all that the slot holds comes together.
                if not np.isfinite(rows[-1]).all():
                    self._dirty.add(segments[i].slot)
                wanted = segments[i].num_logits
                logits[ends[i] - wanted : ends[i]] = rows[len(rows) - wanted :]
        for segment in segments:
            self._held[segment.slot] = segment.start + len(segment.token_ids)
        return logits

    def _forget(self, segments: Sequence[Segment]) -> None:
        """Drop what earlier sequences left in the slots from the segments' starts on."""
        for segment in segments:
            slot, end = segment.slot, segment.start + len(segment.token_ids)
            if self._held[slot] != segment.start:
                self._cut(slot, segment.start)
                if slot in self._dirty and segment.start == 0:
                    self._wipe(slot)
            # Unless the step ends well, nobody knows what it holds.
            self._held[slot] = -1
            self._most_held[slot] = max(self._most_held[slot], end)

    def _cut(self, slot: int, start: int) -> None:
        if not self._api.llama_memory_seq_rm(self._memory, slot, start, _TO_THE_END):
            raise RuntimeError(f"llama.cpp cannot cut slot {slot} there")

    def _wipe(self, slot: int) -> None:
        """Write over what an empty slot held before.

        Attention multiplies places that it leaves out by zero, so NaN in them would reach whoever
        comes next. It reads whole blocks of places, so as many are written at once.
        """
        for start in range(0, self._most_held[slot], READ_TOGETHER):
            length = min(READ_TOGETHER, self.slot_tokens - start)
            self._decode([Segment(slot, start, [0] * length)])
        self._cut(slot, 0)
        self._dirty.discard(slot)
        self._most_held[slot] = 0

    def _decode(self, segments: Sequence[Segment]) -> list[NDArray[np.float32]]:
        """Compute segments of one length, in ascending order of their slots.

        Returns:
            Logits of each segment: those that it wants, and of the last place in any case. The next
            call writes over them.
        """
        length = len(segments[0].token_ids)
        tokens = np.array([segment.token_ids for segment in segments], np.int32)
        starts = np.array([segment.start for segment in segments])
        positions = (starts[:, None] + np.arange(length)).astype(np.int32)
        slots = np.repeat([segment.slot for segment in segments], length)
        num_logits = np.array([max(segment.num_logits, 1) for segment in segments])
        wanted = (np.arange(length) >= length - num_logits[:, None]).astype(np.int8)
        number_of_slots = np.ones(tokens.size, np.int32)
        places = self._sequences.ctypes.data + self._sequences.itemsize * slots.astype(np.uint64)
        batch = batch_of(
            token=tokens, pos=positions, n_seq_id=number_of_slots, seq_id=places, logits=wanted
        )
        batch.n_tokens = tokens.size
        if (status := self._api.llama_decode(self._context, batch)) != 0:
            raise RuntimeError(f"llama_decode of {tokens.size} tokens returned {status}")
        shape = int(num_logits.sum()), self._vocabulary
        logits = np.ctypeslib.as_array(self._api.llama_get_logits(self._context), shape)
        return np.split(logits, np.cumsum(num_logits)[:-1])

    def _open_context(self) -> int | None:
        parameters = self._api.llama_context_default_params()
        parameters.n_seq_max = self.num_slots
        parameters.n_ctx = self.num_slots * self.slot_tokens
        parameters.n_batch = parameters.n_ctx
        parameters.n_ubatch = MOST_STEP_TOKENS
        parameters.n_outputs_max_per_seq = 0
        parameters.n_threads = parameters.n_threads_batch = self._threads
        parameters.type_k = parameters.type_v = self._cache_type
        parameters.flash_attn_type = NOT_FUSED
        parameters.swa_full = True
        parameters.kv_unified = False
        context: int | None = self._api.llama_init_from_model(self._model, parameters)
        return context

    def _check_window(self) -> None:
        key = WINDOW_KEY
        if self._metadata("general.architecture") == "phi3":  # of files that others made
            key = "phi3.attention.sliding_window"
        window = int(self._metadata(key) or 0)
        if 0 < window < self.slot_tokens:
            raise ConfigError(
                f"this model attends to the latest {window} tokens, which llama.cpp does not know: "
                f"serve it with max_tokens: {window} at most; it is {self.slot_tokens}"
            )

    def _count(self, what: str) -> int:
        return int(getattr(self._api, f"llama_model_{what}")(self._model))

    def _head_width(self, part: str, default: int) -> int:
        architecture = self._metadata("general.architecture")
        return int(self._metadata(f"{architecture}.attention.{part}_length") or default)

    def _metadata(self, key: str) -> str:
        """A value of the file's header as text; empty if it has none."""
        value = ctypes.create_string_buffer(256)
        length = self._api.llama_model_meta_val_str(self._model, key.encode(), value, len(value))
        return value.value.decode() if length >= 0 else ""


def computed_together(segments: Sequence[Segment]) -> list[list[int]]:
    """Say which segments go into one call of ``llama_decode``, as their places.

    llama.cpp takes sequences together only in ascending order and, where their lengths differ, cuts
    the longer ones, down to a single token, which another kernel of its attention computes. So a
    prompt's logits would depend on what else the step brings.
    """
    groups: dict[int, list[int]] = {}
    for place in sorted(range(len(segments)), key=lambda place: segments[place].slot):
        groups.setdefault(len(segments[place].token_ids), []).append(place)
    return list(groups.values())
