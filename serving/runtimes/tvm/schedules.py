"""In which order, in which registers and on which cores kernels compute: by hand, not tuned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import gcd
from typing import Any

from tvm import s_tir

TILE = 64
"""Sums that are kept in registers at once: eight of AVX2's sixteen registers, as many as its two
multipliers have under way in the four cycles that one takes."""

GROUP = 4
"""Blocks of outputs that a tile's inputs are used for while they are in the nearest cache."""

NOT_TO_BE_FUSED = 8
"""``OpPatternKind::kOpaque`` of TVM: it leaves the kernel as it is."""

COMPUTED_ANEW = ("squares", "below")
"""Stages of rows that are kept nowhere."""


def schedule(name: str, kernel: Any) -> Any:
    """Return a kernel's function as it is to be compiled.

    Args:
        name: Of its expression in ``kernels``.
        kernel: The expression's function, as TVM made it.
    """
    plan = s_tir.Schedule(kernel)
    _SCHEDULES[name](plan)
    return plan.mod["main"].with_attrs({"op_pattern": NOT_TO_BE_FUSED})


def _linear(plan: Any) -> None:
    rows, eights, tokens, blocks, lane = plan.get_loops(_inlined(plan))
    outer, inner = _split_tokens(plan, tokens, lane)
    shared, group = plan.split(blocks, [None, gcd(_extent(plan, blocks), GROUP)])
    plan.reorder(shared, rows, eights, outer, group, inner, lane)
    plan.parallel(shared)
    _keep_sums(plan, group, inner, lane, num_sums=2)


def _score(plan: Any) -> None:
    rows, heads, eights, tokens, others, lane = plan.get_loops(_inlined(plan))
    outer, inner = _split_tokens(plan, tokens, lane)
    plan.reorder(rows, heads, eights, outer, others, inner, lane)
    plan.parallel(plan.fuse(rows, heads))
    _keep_sums(plan, others, inner, lane, num_sums=1)


def _mix(plan: Any) -> None:
    rows, eights, tokens, blocks, lane = plan.get_loops(_inlined(plan))
    outer, inner = _split_tokens(plan, tokens, lane)
    plan.reorder(rows, blocks, eights, outer, inner, lane)
    plan.parallel(plan.fuse(rows, blocks))
    _keep_sums(plan, outer, inner, lane, num_sums=2)


def _rows(num_loops: int, plan: Any) -> None:
    """Compute all stages of one row of numbers after the other."""
    *stages, result = _stages(plan)
    loops = plan.get_loops(result)
    row = plan.fuse(*loops[:num_loops])
    plan.parallel(row)
    if len(loops) > num_loops:
        plan.vectorize(loops[-1])
    for stage in reversed(stages):
        name = plan.get(stage).name_hint
        if name in COMPUTED_ANEW:
            plan.compute_inline(stage)
            continue
        plan.compute_at(stage, row, preserve_unit_loops=False)
        if name.endswith("by_lane"):
            *_, lane, block = plan.get_loops(stage)
            plan.reorder(block, lane)
            plan.vectorize(lane)
            plan.decompose_reduction(stage, block)


_SCHEDULES: Mapping[str, Callable[[Any], None]] = {
    "look_up": partial(_rows, 3),
    "first_token": partial(_rows, 3),
    "linear": _linear,
    "normalise": partial(_rows, 3),
    "turn": partial(_rows, 3),
    "score": _score,
    "share": partial(_rows, 4),
    "mix": _mix,
}


def _stages(plan: Any) -> list[Any]:
    return list(plan.get_child_blocks(plan.get_sblock("root")))


def _inlined(plan: Any) -> Any:
    """Leave ``tile`` and ``result`` only; returns the second."""
    for stage in _stages(plan):
        if plan.get(stage).name_hint not in ("tile", "result"):
            plan.compute_inline(stage)
    return plan.get_sblock("result")


def _split_tokens(plan: Any, tokens: Any, lane: Any) -> Any:
    at_once = gcd(_extent(plan, tokens), TILE // _extent(plan, lane))
    return plan.split(tokens, [None, at_once])


def _keep_sums(plan: Any, around: Any, tokens: Any, lane: Any, num_sums: int) -> None:
    """Sum a tile up inside the loop ``around``, over ``num_sums`` loops."""
    tile = plan.get_sblock("tile")
    # Of the default scope: only this one TVM keeps on the stack, and so LLVM in registers.
    plan.compute_at(tile, around, preserve_unit_loops=True)
    plan.unroll(tokens)
    plan.vectorize(lane)
    num_spatial = len(plan.get(tile).iter_vars) - num_sums
    loops = plan.get_loops(tile)
    spatial, sums = loops[-num_spatial - num_sums : -num_sums], loops[-num_sums:]
    plan.reorder(*sums, *spatial)
    for loop in spatial[:-1]:
        plan.unroll(loop)
    plan.vectorize(spatial[-1])
    plan.decompose_reduction(tile, sums[0])


def _extent(plan: Any, loop: Any) -> int:
    return int(plan.get(loop).extent)
