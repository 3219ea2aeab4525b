"""What a graph computes with: TVM tensor expressions over tokens by eights.

Hidden states are (rows, eights, 8, blocks, lanes): a row's tokens, eight by eight, and each token's
numbers, block by block. A linear layer's weights are (blocks of its outputs, inputs, lanes), so
that what the innermost loop reads lies side by side; like tables, they may be float16. In each
expression ``tile`` names the stage of products that are kept in registers and ``result`` the last
one: ``schedules`` asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import gcd
from typing import Any

from tvm import te, tirx, topi

MOST_LANES = 16
"""Most numbers of a token that are computed at once: two registers of AVX2."""


def num_lanes(width: int) -> int:
    """The most lanes that divide a width."""
    return gcd(width, MOST_LANES)


def look_up(*pairs: Any) -> Any:
    """Sum of table rows; ids, int32 (rows, eights, 8), and a table by turns.

    Tables are (entries, blocks, lanes).
    """
    ids, tables = pairs[::2], pairs[1::2]
    return te.compute(
        (*ids[0].shape, *tables[0].shape[1:]),
        lambda b, t, i, o, j: _sum(
            table[numbers[b, t, i], o, j].astype("float32")
            for numbers, table in zip(ids, tables, strict=True)
        ),
        "result",
    )


def first_token(hidden: Any) -> Any:
    """Hidden states of each row's first token, (rows, 1, 1, blocks, lanes)."""
    rows, _, _, blocks, lanes = hidden.shape
    shape = (rows, 1, 1, blocks, lanes)
    return te.compute(shape, lambda b, t, i, o, j: hidden[b, 0, 0, o, j], "result")


def linear(activation: str | None, hidden: Any, weight: Any, bias: Any, *added: Any) -> Any:
    """A linear layer, its activation, and hidden states that are added to that.

    Args:
        activation: A key of ``ACTIVATIONS``, or None.
        hidden: (rows, eights, tokens, blocks, lanes).
        weight: (blocks of the outputs, inputs, lanes of the outputs).
        bias: (blocks, lanes) of the outputs.
        added: Shaped as the result.
    """
    *tokens, blocks, lanes = hidden.shape
    block, lane = te.reduce_axis((0, blocks), "block"), te.reduce_axis((0, lanes), "lane")
    shape = (*tokens, weight.shape[0], weight.shape[2])

    def product(b: Any, t: Any, i: Any, o: Any, j: Any) -> Any:
        factor = weight[o, block * lanes + lane, j].astype("float32")
        return hidden[b, t, i, block, lane] * factor

    tile = te.compute(shape, lambda *at: te.sum(product(*at), axis=[block, lane]), "tile")
    value = te.compute(shape, lambda *at: tile(*at) + bias(*at[-2:]), "biased")
    if activation is not None:
        value = ACTIVATIONS[activation](value)
    return te.compute(shape, lambda *at: _sum(each(*at) for each in (value, *added)), "result")


def normalise(epsilon: float, hidden: Any, weight: Any, bias: Any) -> Any:
    """Layer normalisation; weight and bias are (blocks, lanes)."""
    *tokens, blocks, lanes = hidden.shape
    width = float(int(blocks * lanes))
    mean = _over_last_two(te.sum, hidden, "sum")
    centred = te.compute(
        hidden.shape, lambda *at: hidden(*at) - mean(*at[:-2]) * (1 / width), "centred"
    )
    squares = te.compute(hidden.shape, lambda *at: centred(*at) * centred(*at), "squares")
    variance = _over_last_two(te.sum, squares, "square_sum")
    inverse = te.compute(
        tokens, lambda *at: 1 / te.sqrt(variance(*at) * (1 / width) + epsilon), "inverse"
    )
    return te.compute(
        hidden.shape,
        lambda *at: centred(*at) * inverse(*at[:-2]) * weight(*at[-2:]) + bias(*at[-2:]),
        "result",
    )


def turn(num_heads: int, keys: Any) -> Any:
    """Keys by head, eight tokens last: (rows, heads, eights, size, 8)."""
    rows, eights, tokens, blocks, lanes = keys.shape
    size = int(blocks * lanes) // num_heads
    return te.compute(
        (rows, num_heads, eights, size, tokens),
        lambda b, h, t, d, i: _column(keys, (b, t, i), h * size + d),
        "result",
    )


def score(queries: Any, keys: Any, mask: Any) -> Any:
    """Products of queries and keys, scaled: (rows, heads, eights, 8, eights, 8).

    Args:
        queries: (rows, eights, 8, blocks, lanes).
        keys: As ``turn`` gives them.
        mask: (rows, eights, 8), what is added for each key.
    """
    rows, num_heads, eights, size, tokens = keys.shape
    column = te.reduce_axis((0, size), "column")

    def product(b: Any, h: Any, t: Any, i: Any, o: Any, j: Any) -> Any:
        return _column(queries, (b, t, i), h * size + column) * keys[b, h, o, column, j]

    shape = (rows, num_heads, eights, tokens, eights, tokens)
    tile = te.compute(shape, lambda *at: te.sum(product(*at), axis=column), "tile")
    scale = float(int(size) ** -0.5)
    return te.compute(
        shape, lambda b, h, t, i, o, j: tile(b, h, t, i, o, j) * scale + mask[b, o, j], "result"
    )


def share(scores: Any) -> Any:
    """Softmax over the keys."""
    highest = _over_last_two(te.max, scores, "highest")
    below = te.compute(scores.shape, lambda *at: scores(*at) - highest(*at[:-2]), "below")
    powers = topi.fast_exp(below)
    total = _over_last_two(te.sum, powers, "total")
    return te.compute(scores.shape, lambda *at: powers(*at) / total(*at[:-2]), "result")


def mix(shares: Any, values: Any) -> Any:
    """Values by their shares: (rows, eights, 8, blocks, lanes)."""
    _, num_heads, eights, tokens, _, _ = shares.shape
    blocks, lanes = values.shape[-2:]
    size = int(blocks * lanes) // int(num_heads)
    eight, token = te.reduce_axis((0, eights), "eight"), te.reduce_axis((0, tokens), "token")

    def product(b: Any, t: Any, i: Any, o: Any, j: Any) -> Any:
        head = tirx.floordiv(o * lanes + j, size)
        return shares[b, head, t, i, eight, token] * values[b, eight, token, o, j]

    tile = te.compute(values.shape, lambda *at: te.sum(product(*at), axis=[eight, token]), "tile")
    return te.compute(values.shape, lambda *at: tile(*at), "result")


def _gelu(value: Any) -> Any:
    half = te.compute(value.shape, lambda *at: value(*at) * float(2**-0.5), "half")
    error = topi.fast_erf(half)
    return te.compute(value.shape, lambda *at: value(*at) * 0.5 * (1 + error(*at)), "gelu")


def _gelu_by_tanh(value: Any) -> Any:
    """arXiv 1606.08415, the second form."""
    inner = te.compute(
        value.shape,
        lambda *at: (value(*at) + 0.044715 * value(*at) * value(*at) * value(*at)) * GELU_SCALE,
        "inner",
    )
    curve = topi.fast_tanh(inner)
    return te.compute(value.shape, lambda *at: value(*at) * 0.5 * (1 + curve(*at)), "gelu")


GELU_SCALE = 0.7978845608028654
"""The root of 2/π."""

ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
    "gelu": _gelu,
    "gelu_new": _gelu_by_tanh,
    "gelu_pytorch_tanh": _gelu_by_tanh,
    "relu": partial(topi.nn.relu),
    "tanh": topi.fast_tanh,
}
"""By transformers' names."""


def _column(hidden: Any, token: tuple[Any, ...], column: Any) -> Any:
    """One of a token's numbers."""
    lanes = hidden.shape[-1]
    return hidden(*token, tirx.floordiv(column, lanes), tirx.floormod(column, lanes))


def _over_last_two(reduce: Callable[..., Any], value: Any, name: str) -> Any:
    """Reduce the last dimension but one first, so that the last is a whole register until then."""
    *kept, blocks, lanes = value.shape
    block, lane = te.reduce_axis((0, blocks), "block"), te.reduce_axis((0, lanes), "lane")
    by_lane = te.compute(
        (*kept, lanes),
        lambda *at: reduce(value(*at[:-1], block, at[-1]), axis=block),
        f"{name}_by_lane",
    )
    return te.compute(kept, lambda *at: reduce(by_lane(*at, lane), axis=lane), name)


def _sum(values: Any) -> Any:
    first, *others = values
    for other in others:
        first = first + other
    return first
