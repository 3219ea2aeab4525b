"""A decoder on llama.cpp: one ``llama_decode`` for whatever tokens a step brings (CPU)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.errors import ConfigError
from serving.machine.process_memory import peak_resident_bytes, private_bytes, resident_bytes
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
from serving.seams import DeviceName, Footprint, Segment

MOST_STEP_TOKENS = 512
"""Tokens that are computed at once; a step that brings more is computed in parts."""

CACHE_NUMBER_BYTES = {FLOAT32: 4, FLOAT16: 2}

_TO_THE_END = -1


class LlamaCppDecoder:
    """A GGUF file behind ``num_slots`` sequences of llama.cpp, each with its own part of the cache.

    Args:
        file: The GGUF file; weights that no kernel wants in another order are mapped.
        num_slots: Sequences that the cache holds.
        slot_tokens: Most tokens of each.
        threads: Threads of the kernels, until told otherwise.
        cache_type: Numbers of cached keys and values, one of ``CACHE_NUMBER_BYTES``.

    Raises:
        ConfigError: llama.cpp cannot read the file, or would attend to more than the model does.
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
            raise ConfigError(f"llama.cpp cannot load {file.name}: {library.reason()}")
        self._vocabulary: int = self._api.llama_vocab_n_tokens(
            self._api.llama_model_get_vocab(self._model)
        )
        self._check_window()
        self._threads = threads
        with return_empty_buffers(library.base):
            self._context = self._open_context()
        if not self._context:
            raise ConfigError(f"llama.cpp cannot open {file.name}: {library.reason()}")
        self._memory = self._api.llama_get_memory(self._context)
        self._held = [0] * num_slots
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
        resident = resident_bytes()
        return Footprint(
            weights_bytes=int(self._api.llama_model_size(self._model)),
            resident_bytes=resident,
            private_bytes=private_bytes(),
            peak_bytes=max(peak_resident_bytes(), resident),
        )

    def use_cores(self, cores: Sequence[int]) -> None:
        if len(cores) != self._threads:
            self._threads = len(cores)
            self._api.llama_set_n_threads(self._context, self._threads, self._threads)

    def step(self, segments: Sequence[Segment]) -> NDArray[np.float32]:
        self._forget(segments)
        counts = [len(segment.token_ids) for segment in segments]
        slots = np.repeat([segment.slot for segment in segments], counts)
        tokens = np.concatenate([np.asarray(s.token_ids, np.int32) for s in segments])
        places = [np.arange(s.start, s.start + n) for s, n in zip(segments, counts, strict=True)]
        wanted = [np.arange(n) >= n - s.num_logits for s, n in zip(segments, counts, strict=True)]
        positions = np.concatenate(places).astype(np.int32)
        self._decode(tokens, positions, slots, np.concatenate(wanted).astype(np.int8))
        for segment, count in zip(segments, counts, strict=True):
            self._held[segment.slot] = segment.start + count
        return self._logits(sum(segment.num_logits for segment in segments))

    def _forget(self, segments: Sequence[Segment]) -> None:
        """Drop what earlier sequences left in the slots from the segments' starts on."""
        for segment in segments:
            if self._held[segment.slot] != segment.start:
                removed = self._api.llama_memory_seq_rm(
                    self._memory, segment.slot, segment.start, _TO_THE_END
                )
                if not removed:
                    raise RuntimeError(f"llama.cpp cannot cut slot {segment.slot} there")
            # Unless the step ends well, nobody knows what it holds.
            self._held[segment.slot] = -1

    def _decode(
        self,
        tokens: NDArray[np.int32],
        positions: NDArray[np.int32],
        slots: NDArray[np.intp],
        wanted: NDArray[np.int8],
    ) -> None:
        number_of_slots = np.ones(len(tokens), np.int32)
        places = self._sequences.ctypes.data + self._sequences.itemsize * slots.astype(np.uint64)
        batch = batch_of(
            token=tokens, pos=positions, n_seq_id=number_of_slots, seq_id=places, logits=wanted
        )
        batch.n_tokens = len(tokens)
        if (status := self._api.llama_decode(self._context, batch)) != 0:
            raise RuntimeError(f"llama_decode of {len(tokens)} tokens returned {status}")

    def _logits(self, num_rows: int) -> NDArray[np.float32]:
        if num_rows == 0:
            return np.empty((0, self._vocabulary), np.float32)
        shape = (num_rows, self._vocabulary)
        # The next step writes over them.
        return np.ctypeslib.as_array(self._api.llama_get_logits(self._context), shape).copy()

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
