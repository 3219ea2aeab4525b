"""A decoder on torch: one forward pass over whatever tokens a step brings, cache in slots (CPU)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from serving.runtimes.torch import footprint
from serving.runtimes.torch.decoder.causal_lm import FusedModel
from serving.runtimes.torch.decoder.families.family import Activation
from serving.runtimes.torch.decoder.slot_memory import SlotMemory
from serving.runtimes.torch.thread_count import ThreadCount
from serving.seams import DeviceName, Footprint, Segment

attend = functional.scaled_dot_product_attention


ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


@dataclass(frozen=True, slots=True)
class _LayerCalls:
    """A layer's functions and norms, found once: looking modules up takes a tenth of a step.

    Attributes: as of ``causal_lm.Layer``.
    """

    qkv: Callable[[Tensor], Tensor]
    output: Callable[[Tensor], Tensor]
    gate_up: Callable[[Tensor], Tensor]
    down: Callable[[Tensor], Tensor]
    rotary: int
    attention_norm: Tensor
    attention_norm_bias: Tensor | None
    after_attention_norm: Tensor | None
    mlp_norm: Tensor
    mlp_norm_bias: Tensor | None
    after_mlp_norm: Tensor | None
    head_norm: Tensor | None


def _calls_of(layer: Any) -> _LayerCalls:
    return _LayerCalls(
        qkv=layer.qkv.forward,
        output=layer.output.forward,
        gate_up=layer.gate_up.forward,
        down=layer.down.forward,
        rotary=layer.rotary,
        **layer.tensors(),
    )


def _kv_shape(model: FusedModel) -> tuple[int, int]:
    return model.shape.kv_heads, model.shape.width


@dataclass(frozen=True, slots=True)
class _Attention:
    """Queries that attend together: rows of one shape over slots that lie side by side.

    Attributes:
        rows: Which tokens of the step.
        slots: Which slots.
        length: Cached tokens that any of them sees.
        mask: float (slots, 1, queries, length), 0 or -inf; None if all see everything.
        holes: Position of each row among ``slots``, if some slots have no row.
    """

    rows: slice
    slots: slice
    length: int
    mask: Tensor | None
    holes: Tensor | None


@dataclass(frozen=True, slots=True)
class _Layout:
    """The tokens of one step.

    Attributes:
        ids: int64 (tokens,).
        positions: int64 (tokens,).
        rotations: complex64 (tokens, 1, width / 2), of each of the model's rotaries.
        rows: int64 (tokens,), places in the cache.
        attentions: Cover every token once.
        wanted: int64, tokens whose logits are wanted; None for all.
    """

    ids: Tensor
    positions: Tensor
    rotations: list[Tensor]
    rows: Tensor
    attentions: list[_Attention]
    wanted: Tensor | None


class TorchDecoder:
    """A fused model with a cache of ``num_slots`` sequences.

    Args:
        model: The converted model.
        dtype: Type of the activations that go into linear layers.
        cache_dtype: Type of cached keys and values.
        num_slots: Sequences that the cache holds.
        slot_tokens: Most tokens of each.
        threads: Intra-op threads, until told otherwise.
    """

    def __init__(
        self,
        model: FusedModel,
        dtype: torch.dtype,
        cache_dtype: torch.dtype,
        num_slots: int,
        slot_tokens: int,
        threads: int,
    ) -> None:
        self.num_slots, self.slot_tokens = num_slots, slot_tokens
        self._model, self._shape = model, model.shape
        self._layers = [_calls_of(layer) for layer in model.layers]
        self._rotations = [rotary.table(slot_tokens) for rotary in model.rotaries]
        self._form, self._dtype = model.form, dtype
        self._activate = ACTIVATIONS[model.form.activation]
        self._weights_bytes = footprint.weights_bytes(model)
        self._threads = ThreadCount(threads)
        # Zeros, because a masked place still takes part in a product with weight 0.
        self._num_written = [0] * num_slots
        self._memory = SlotMemory(
            len(model.layers), num_slots, slot_tokens, (2, *_kv_shape(model)), cache_dtype
        )
        self._cache = self._memory.numbers
        self._rows = self._cache.flatten(1, 2).flatten(2, 3).unbind(0)

    @property
    def device(self) -> DeviceName:
        return "cpu"

    @property
    def kv_cache_bytes(self) -> int:
        return self._cache.numel() * self._cache.element_size()

    def footprint(self) -> Footprint:
        return footprint.measure(self._weights_bytes, "cpu")

    def use_cores(self, cores: Sequence[int]) -> None:
        self._threads.wanted = len(cores)

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """See ``SharesPrefixes``. Copies: slots lie apart."""
        self._cache[:, target, :num_tokens] = self._cache[:, source, :num_tokens]
        self._num_written[target] = max(self._num_written[target], num_tokens)

    def step(self, segments: Sequence[Segment]) -> NDArray[np.float32]:
        self._threads.apply()
        with torch.inference_mode():
            layout = self._lay_out(segments)
            self._forget(segments)
            hidden = self._embed(layout)
            seen = [self._visible(attention) for attention in layout.attentions]
            for index, layer in enumerate(self._layers):
                added = self._attend(index, layer, hidden, layout, seen)
                if self._form.is_parallel:
                    added = added + self._transform(layer, hidden)
                hidden = hidden.add_(added)
                if not self._form.is_parallel:
                    hidden = hidden.add_(self._transform(layer, hidden))
            if layout.wanted is not None:
                hidden = hidden[layout.wanted]
            if len(hidden) == 0:
                return np.empty((0, self._model.vocabulary), np.float32)
            hidden = self._norm(hidden, self._model.norm, self._model.norm_bias)
            logits = _capped(self._model.head(hidden).float(), self._form.logit_cap)
            result: NDArray[np.float32] = logits.numpy()
        return result

    def _embed(self, layout: _Layout) -> Tensor:
        hidden: Tensor = self._model.table(layout.ids).float()
        if self._form.embedding_scale != 1:
            hidden = hidden * self._form.embedding_scale
        if self._model.positions is not None:
            hidden = hidden + self._model.positions[layout.positions]
        return hidden

    def _forget(self, segments: Sequence[Segment]) -> None:
        """Clear what earlier sequences have left behind the segments' ends.

        It is masked, but a NaN or an infinity would still reach the sum: it is multiplied by the
        weight 0.
        """
        for segment in segments:
            end = segment.start + len(segment.token_ids)
            written, self._num_written[segment.slot] = self._num_written[segment.slot], end
            if end < written:
                self._memory.forget(segment.slot, end, written)

    def _visible(self, attention: _Attention) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (slots, kv_heads, length, width) of every layer, as views."""
        part = self._cache[:, attention.slots, : attention.length].permute(3, 0, 1, 4, 2, 5)
        keys, values = part.unbind(0)
        return list(zip(keys.unbind(0), values.unbind(0), strict=True))

    def _attend(
        self,
        index: int,
        layer: _LayerCalls,
        hidden: Tensor,
        layout: _Layout,
        seen: list[list[tuple[Tensor, Tensor]]],
    ) -> Tensor:
        """Write the tokens' keys and values and look at the cache: (tokens, hidden)."""
        heads, turning = self._shape.heads, self._shape.heads + self._shape.kv_heads
        qkv = layer.qkv(self._norm(hidden, layer.attention_norm, layer.attention_norm_bias)).float()
        pairs = qkv.view(len(hidden), -1, self._shape.width // 2, 2)[:, :turning]
        if layer.head_norm is not None:
            by_head = pairs.flatten(2)
            pairs.copy_((self._rms(by_head) * layer.head_norm).view_as(pairs))
        torch.view_as_complex(pairs).mul_(layout.rotations[layer.rotary])
        qkv = qkv.to(self._cache.dtype).view(len(hidden), -1, self._shape.width)
        self._rows[index].index_copy_(0, layout.rows, qkv[:, heads:])
        parts = [
            self._look(qkv[attention.rows, :heads], *kv[index], attention)
            for attention, kv in zip(layout.attentions, seen, strict=True)
        ]
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        added = layer.output(attended.to(self._dtype))
        return self._after(added, layer.after_attention_norm)

    def _look(self, queries: Tensor, keys: Tensor, values: Tensor, attention: _Attention) -> Tensor:
        if attention.holes is not None:
            filled = queries.new_zeros(len(keys), *queries.shape[1:])
            filled[attention.holes] = queries
            queries = filled
        # The heads that share a key are further queries of it: nothing has to be repeated.
        grouped = queries.reshape(len(keys), -1, self._shape.kv_heads, self._shape.width)
        grouped = grouped.transpose(1, 2)
        if self._form.score_cap is None:
            out = attend(grouped, keys, values, attention.mask)
        else:
            out = _attend_capped(grouped, keys, values, attention.mask, self._form.score_cap)
        out = out.transpose(1, 2)
        if attention.holes is not None:
            out = out[attention.holes]
        return out.reshape(-1, self._shape.heads * self._shape.width)

    def _transform(self, layer: _LayerCalls, hidden: Tensor) -> Tensor:
        x = layer.gate_up(self._norm(hidden, layer.mlp_norm, layer.mlp_norm_bias))
        if self._form.is_gated:
            gate, up = x.chunk(2, 1)
            x = self._activate(gate).mul_(up)
        else:
            x = self._activate(x)
        return self._after(layer.down(x), layer.after_mlp_norm)

    def _after(self, added: Tensor, weight: Tensor | None) -> Tensor:
        return added if weight is None else self._rms(added.float()) * weight

    def _norm(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._form.norm == "layer":
            x = functional.layer_norm(x, weight.shape, weight, bias, self._shape.epsilon)
            return x.to(self._dtype)
        return (self._rms(x) * weight).to(self._dtype)

    def _rms(self, x: Tensor) -> Tensor:
        # torch's rms_norm takes three times as long for few rows.
        return x * x.square().mean(-1, True).add_(self._shape.epsilon).rsqrt_()

    def _lay_out(self, segments: Sequence[Segment]) -> _Layout:
        single = sorted(
            (s for s in segments if len(s.token_ids) == 1), key=lambda segment: segment.slot
        )
        ordered = single + [s for s in segments if len(s.token_ids) > 1]
        ids = [token for s in ordered for token in s.token_ids]
        positions = [s.start + i for s in ordered for i in range(len(s.token_ids))]
        rows = [
            s.slot * self.slot_tokens + s.start + i
            for s in ordered
            for i in range(len(s.token_ids))
        ]
        attentions = [self._side_by_side(single)] if single else []
        first = {}
        at = 0
        for segment in ordered:
            first[id(segment)] = at
            if len(segment.token_ids) > 1:
                attentions.append(self._one_sequence(segment, at))
            at += len(segment.token_ids)
        wanted: list[int] = []
        for segment in segments:
            end = first[id(segment)] + len(segment.token_ids)
            wanted.extend(range(end - segment.num_logits, end))
        places = torch.tensor(positions)
        return _Layout(
            ids=torch.tensor(ids),
            positions=places,
            rotations=[table[places].unsqueeze(1) for table in self._rotations],
            rows=torch.tensor(rows),
            attentions=attentions,
            wanted=None
            if wanted == list(range(len(ids)))
            else torch.tensor(wanted, dtype=torch.int64),
        )

    def _side_by_side(self, single: list[Segment]) -> _Attention:
        """Single tokens of several sequences, sorted by slot."""
        low, high = single[0].slot, single[-1].slot + 1
        lengths = [segment.start + 1 for segment in single]
        longest = max(lengths)
        slots = [segment.slot - low for segment in single]
        holes = None if len(slots) == high - low else torch.tensor(slots)
        mask = None
        if holes is not None or min(lengths) < longest:
            # A slot without a token sees one place: seeing none would make NaN.
            seen = torch.ones(high - low, dtype=torch.int64)
            seen[slots] = torch.tensor(lengths)
            mask = self._mask(seen[:, None], longest)
        return _Attention(slice(len(single)), slice(low, high), longest, mask, holes)

    def _one_sequence(self, segment: Segment, at: int) -> _Attention:
        """Consecutive tokens of one sequence, each seeing itself and those before it."""
        count = len(segment.token_ids)
        length = segment.start + count
        seen = torch.arange(segment.start + 1, length + 1)
        seen = seen.repeat_interleave(self._shape.heads // self._shape.kv_heads)
        return _Attention(
            rows=slice(at, at + count),
            slots=slice(segment.slot, segment.slot + 1),
            length=length,
            mask=self._mask(seen[None], length),
            holes=None,
        )

    def _mask(self, seen: Tensor, length: int) -> Tensor:
        """Turn visible places, int64 (slots, queries), into (slots, 1, queries, length)."""
        hidden = torch.arange(length) >= seen[..., None]
        mask = torch.zeros(hidden.shape, dtype=self._cache.dtype)
        return mask.masked_fill_(hidden, -torch.inf).unsqueeze(1)


def _capped(x: Tensor, cap: float | None) -> Tensor:
    return x if cap is None else (x / cap).tanh_().mul_(cap)


def _attend_capped(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, cap: float
) -> Tensor:
    """Attention whose scores a hyperbolic tangent keeps within a cap, which torch's own has not."""
    scores = _capped(queries @ keys.transpose(2, 3) * queries.shape[-1] ** -0.5, cap)
    if mask is not None:
        scores = scores + mask
    return scores.softmax(-1) @ values
