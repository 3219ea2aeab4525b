"""A compiled graph with paged attention as a decoder: one call for all tokens of a step."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from itertools import accumulate
from math import prod

import numpy as np
import openvino
from numpy.typing import NDArray

from serving.runtimes.openvino.generation.block_tables import BlockTables
from serving.runtimes.openvino.generation.paged_graph import WANTED
from serving.runtimes.process_footprint import measure_process
from serving.seams import DeviceName, Footprint, Segment

BLOCK_TOKENS = 32
"""Tokens of a block in the CPU's paged attention."""

Inputs = dict[str, NDArray[np.int64] | NDArray[np.int32]]


class PagedDecoder:
    """A compiled graph and its cache, in blocks that slots may share.

    Args:
        model: What became of a graph of ``paged_graph.page``.
        num_slots: Sequences that the cache holds.
        slot_tokens: Most tokens of each.
        weights_bytes: Size of its constants.
    """

    def __init__(
        self, model: openvino.CompiledModel, num_slots: int, slot_tokens: int, weights_bytes: int
    ) -> None:
        self.num_slots, self.slot_tokens = num_slots, slot_tokens
        self._request = model.create_infer_request()
        self._weights_bytes = weights_bytes
        self._tables = BlockTables(num_slots, slot_tokens, BLOCK_TOKENS)
        (self._vocabulary,) = list(model.output(0).get_partial_shape())[-1:]
        self._caches = []
        for port in model.inputs:
            if "_cache." in (name := port.get_any_name()):
                cache = _untouched_blocks(port, self._tables.num_blocks)
                self._request.set_tensor(name, cache)
                self._caches.append(cache.data)

    @property
    def device(self) -> DeviceName:
        return "cpu"

    @property
    def kv_cache_bytes(self) -> int:
        return sum(cache.nbytes for cache in self._caches)

    def use_cores(self, cores: Sequence[int]) -> None:
        """Keep every thread; see ``OpenvinoEncoder.use_cores``."""

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """See ``SharesPrefixes``. Nothing is copied before either goes on in a block of both."""
        self._tables.share(source, target, num_tokens)

    def step(self, segments: Sequence[Segment]) -> NDArray[np.float32]:
        for segment in segments:
            self._make_room(segment)
        inputs = self._inputs(segments)
        num_rows = len(inputs[WANTED])
        if num_rows == 0:
            inputs[WANTED] = np.zeros(1, np.int64)
        outputs = self._request.infer(inputs, share_inputs=True, share_outputs=True)
        # What the graph gave is overwritten by the next call.
        logits: NDArray[np.float32] = outputs[0][:num_rows, 0].copy()
        return logits

    def footprint(self) -> Footprint:
        return measure_process(self._weights_bytes)

    def _make_room(self, segment: Segment) -> None:
        end = segment.start + len(segment.token_ids)
        copy = self._tables.make_room(segment.slot, segment.start, end)
        if copy is not None:
            for cache in self._caches:
                cache[copy.target] = cache[copy.source]

    def _inputs(self, segments: Sequence[Segment]) -> Inputs:
        lengths = [len(segment.token_ids) for segment in segments]
        ends = list(accumulate(lengths, initial=0))
        tables = [self._tables.blocks(segment.slot) for segment in segments]
        tokens = [token for segment in segments for token in segment.token_ids]
        positions = [
            np.arange(s.start, s.start + length)
            for s, length in zip(segments, lengths, strict=True)
        ]
        wanted = [
            np.arange(end - segment.num_logits, end)
            for segment, end in zip(segments, ends[1:], strict=True)
        ]
        totals = [s.start + length for s, length in zip(segments, lengths, strict=True)]
        return {
            "input_ids": np.array(tokens, np.int64),
            "position_ids": np.concatenate(positions).astype(np.int64),
            "past_lens": np.array([segment.start for segment in segments], np.int32),
            "subsequence_begins": np.array(ends, np.int32),
            "block_indices": np.array([b for table in tables for b in table], np.int32),
            "block_indices_begins": np.array(
                list(accumulate(map(len, tables), initial=0)), np.int32
            ),
            "max_context_len": np.array(max(totals), np.int32),
            WANTED: np.concatenate(wanted).astype(np.int64),
        }


def _untouched_blocks(port: openvino.ConstOutput, num_blocks: int) -> openvino.Tensor:
    """Zeros whose memory the system gives page by page, when it is first written."""
    _, *block = list(port.get_partial_shape())
    shape = [num_blocks, *(size.get_length() for size in block)]
    kind = port.get_element_type()
    dtype = np.dtype(np.uint16) if kind == openvino.Type.bf16 else np.dtype(kind.to_dtype())
    size = prod(shape) * dtype.itemsize
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    numbers = np.frombuffer(pages, dtype).reshape(shape)
    if kind == openvino.Type.bf16:
        return openvino.Tensor(numbers, openvino.Shape(shape), kind)
    return openvino.Tensor(numbers, shared_memory=True)
