"""Which cells of the matrix this runtime has, and what they would take."""

from __future__ import annotations

import pytest

from serving.recipes import RECIPES
from serving.runtimes.openvino import execution
from serving.runtimes.openvino.runtime import RUNTIME, why_not
from serving.seams import Combination, SizeRequest, WeightShape


def asked(recipe: str) -> str | None:
    return why_not(Combination(recipe, "encoder", "cpu", "safetensors"))


def test_an_unknown_recipe_is_refused_with_the_known() -> None:
    reason = asked("int2")
    assert reason is not None
    assert reason.startswith("openvino has no recipe int2; it has fp32, bf16, int8-dynamic")


def test_a_cpu_without_bfloat16_or_vnni_is_told_what_is_possible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(execution, "multiplies_bf16", lambda: False)
    monkeypatch.setattr(execution, "multiplies_int8_exactly", lambda: False)
    possible = "openvino can fp32, int8-static, int8-weights, int4 here"
    assert asked("bf16") == (
        f"this CPU does not multiply bfloat16, and OpenVINO would compute in float32; {possible}"
    )
    assert asked("int8-dynamic") == (
        f"this CPU has no VNNI, and OpenVINO would leave the activations in float32; {possible}"
    )
    assert asked("int4") is None


def test_a_cpu_with_both_has_every_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(execution, "multiplies_int8_exactly", lambda: True)
    assert [asked(recipe) for recipe in execution.EXECUTIONS] == [None] * 6


SHAPES = [
    WeightShape("embeddings.word_embeddings.weight", (1000, 96), True),
    WeightShape("encoder.layer.2.output.dense.weight", (96, 96), False),
    WeightShape("encoder.layer.10.output.dense.weight", (96, 96), False),
    WeightShape("encoder.layer.10.output.dense.bias", (96,), False),
    WeightShape("position_ids", (1, 64), False, "I64"),
    WeightShape("pooler.dense.weight", (96, 96), False),
]

TABLE, LINEAR = 1000 * 96, 96 * 96


@pytest.mark.parametrize(
    ("recipe", "options", "expected"),
    [
        ("fp32", {}, 4 * (TABLE + 2 * LINEAR + 96)),
        ("bf16", {}, 2 * (TABLE + 2 * LINEAR + 96)),
        ("int8-static", {}, TABLE + 4 * 1000 + 2 * (LINEAR + 4 * 96) + 4 * 96),
        ("int8-weights", {}, TABLE + 3 * 1000 + 2 * (LINEAR + 3 * 96) + 4 * 96),
        # 96 inputs make groups of 32; the last layer stays in int8.
        (
            "int4",
            {"group_size": 128},
            TABLE + 3 * 1000 + (LINEAR // 2 + 3 * 96 * 5 // 2) + (LINEAR + 3 * 96) + 4 * 96,
        ),
    ],
)
def test_what_the_weights_take(recipe: str, options: dict[str, int], expected: int) -> None:
    request = SizeRequest(recipe, RECIPES[recipe].options(**options), "encoder", "cpu", SHAPES)
    assert RUNTIME.estimate(request).weights_bytes == expected


def test_linear_layers_are_there_twice() -> None:
    request = SizeRequest("fp32", RECIPES["fp32"].options(), "encoder", "cpu", SHAPES)
    without = SizeRequest("fp32", RECIPES["fp32"].options(), "encoder", "cpu", SHAPES[:1])
    extra = RUNTIME.estimate(request).extra_bytes - RUNTIME.estimate(without).extra_bytes
    assert extra == 4 * (2 * LINEAR + 96)
