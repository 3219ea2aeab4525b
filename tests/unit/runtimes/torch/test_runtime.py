"""What torch says it can do, without importing torch, and recipes that strangers add to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.recipes import RECIPES
from serving.runtimes.torch.conversions import fp8
from serving.runtimes.torch.runtime import why_not
from serving.seams import Combination, DeviceName, EngineKind

ROOT = Path(__file__).parents[4]

ASK_EVERYTHING = """
import sys
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import Combination, SizeRequest, WeightShape
torch, shapes = RUNTIMES["torch"], [WeightShape("a.weight", (64, 64), False)]
for recipe in RECIPES:
    for kind in ("encoder", "generator"):
        for device in ("cpu", "cuda"):
            if torch.why_not(Combination(recipe, kind, device, "safetensors")) is None:
                request = SizeRequest(recipe, RECIPES[recipe].options(), kind, device, shapes)
                assert torch.estimate(request).weights_bytes > 0
found = {"torch", "transformers"} & set(sys.modules)
sys.exit(f"imported {found}" if found else 0)
"""

INT2 = """
from dataclasses import replace
from serving.seams import EncoderExpectation, Recipe
from serving.runtimes.torch.conversions.fp32 import CONVERSION as FLOAT

RECIPE = Recipe("weights of four values", EncoderExpectation(cosine=0.4, batch_change=1e-5), None)


def convert_encoder(model, request):
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Linear):
            step = module.weight.std(1, keepdim=True)
            codes = (module.weight / step - 0.5).round().clamp(-2, 1)
            module.weight.data = (codes + 0.5) * step
    return ("four values",)


CONVERSION = replace(FLOAT, convert_encoder=convert_encoder, generator_numerics=None)
"""

ENTRY_POINTS = """
[quantserve.recipes]
int2 = strangers_int2:RECIPE

[quantserve.torch_conversions]
int2 = strangers_int2:CONVERSION
"""


@pytest.mark.parametrize(
    ("recipe", "kind", "device", "reason"),
    [
        ("fp32", "encoder", "cpu", None),
        ("int4", "generator", "cuda", None),
        ("int8-static", "encoder", "cpu", None),
        ("int8-static", "encoder", "cuda", "on torch, int8-static runs on the CPU only"),
        ("int8-static", "generator", "cpu", "on torch, int8-static makes no generators"),
        ("f16", "encoder", "cuda", None),
        ("f16", "encoder", "cpu", None),
        ("fp8", "generator", "cpu", None),
        ("nf4", "generator", "cpu", None),
        ("nf4", "encoder", "cuda", "on torch, nf4 runs on the CPU only"),
        (
            "int8-weights",
            "encoder",
            "cpu",
            "torch has no recipe int8-weights; it has fp32, f16, bf16, fp8, int8-dynamic, "
            "int8-static, int8-outlier, int4, nf4",
        ),
    ],
)
def test_it_says_what_it_cannot_do(
    recipe: str, kind: EngineKind, device: DeviceName, reason: str | None
) -> None:
    assert why_not(Combination(recipe, kind, device, "safetensors")) == reason


@pytest.mark.parametrize(
    ("options", "device", "reason"),
    [
        ({}, "cpu", None),
        ({"symmetric": False}, "cpu", None),
        ({"method": "awq", "symmetric": True}, "cpu", None),
        ({"method": "hqq"}, "cpu", None),
        ({"method": "scale-estimation"}, "cpu", "the methods of int4 are rtn, hqq, awq, gptq"),
        ({"symmetric": True}, "cpu", "its own way to round chooses offsets"),
        ({"method": "hqq", "symmetric": True}, "cpu", "hqq chooses offsets"),
        ({}, "cuda", None),
        ({"method": "gptq"}, "cuda", "on CUDA, int4 has one way to round"),
    ],
)
def test_ways_to_round_that_it_has_not_are_refused(
    options: dict[str, object], device: DeviceName, reason: str | None
) -> None:
    chosen = RECIPES["int4"].options(group_size=32, **options)
    said = why_not(Combination("int4", "generator", device, "safetensors", options=chosen))
    assert said is None if reason is None else said is not None and reason in said


@pytest.mark.parametrize(
    ("capability", "reason"),
    [
        ((9, 0), None),
        ((12, 0), None),
        (None, None),  # a GPU of another node
        ((8, 6), "float8 needs a GPU of compute capability 9.0 (Hopper); this one has 8.6"),
    ],
)
def test_float8_needs_a_gpu_that_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, reason: str | None
) -> None:
    monkeypatch.setattr(fp8, "cuda_capability", lambda: capability)
    assert why_not(Combination("fp8", "encoder", "cuda", "safetensors")) == reason


def test_planning_imports_no_torch() -> None:
    subprocess.run([sys.executable, "-c", ASK_EVERYTHING], check=True, cwd=ROOT)


def test_an_installed_package_adds_a_recipe_which_keeps_the_contract(tmp_path: Path) -> None:
    (tmp_path / "strangers_int2.py").write_text(INT2)
    info = tmp_path / "strangers_int2-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers-int2\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    contract = "tests/unit/runtimes/test_encoder_contract.py"
    child = subprocess.run(
        [sys.executable, "-m", "pytest", contract, "-k", "int2", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "TEST_ALL": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    # Eight promises, six of them for two tasks.
    assert "14 passed" in child.stdout, child.stdout[-3000:]


def test_a_recipe_that_torch_lacks_is_not_among_its_own() -> None:
    assert "int2" not in RECIPES


@pytest.mark.parametrize("recipe", ["int8-dynamic", "fp8", "int4"])
def test_layers_that_no_recipe_rounds_on_a_gpu_are_refused(recipe: str) -> None:
    def said(device: DeviceName, **config: object) -> str | None:
        return why_not(Combination(recipe, "generator", device, "safetensors", config=config))

    assert "layers of gpt2 in bfloat16" in (said("cuda", model_type="gpt2") or "")
    assert "mixture of experts" in (said("cuda", model_type="qwen3_moe", num_experts=8) or "")
    assert "layers of gpt2" not in (said("cpu", model_type="gpt2") or "")
