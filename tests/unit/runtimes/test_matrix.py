"""What works here, and what a missing cell says."""

from dataclasses import replace
from typing import Any

import pytest

from serving.errors import ConfigError
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES, matrix
from serving.runtimes.matrix import describe_possible, installed_version, missing_packages, why_not
from serving.seams import Combination
from tests.unit.paper import Paper

FOLDED = Combination("folded", "encoder", "cpu", "safetensors")


@pytest.mark.usefixtures("paper")
@pytest.mark.parametrize(
    ("change", "runtime", "reason"),
    [
        ({}, "paper", None),
        ({"recipe": "fp32", "kind": "generator"}, "paper", None),
        ({"recipe": "int8-static", "kind": "generator"}, "torch", "no generators in int8-static"),
        ({"kind": "generator"}, "paper", "no generators in folded"),
        ({"device": "cuda"}, "paper", "no cuda on paper"),
        ({"recipe": "bf16"}, "paper", "paper can only be folded"),
        ({"config": {"model_type": "stone"}}, "paper", "does not fold"),
        ({}, "torch", "folded"),
    ],
)
def test_a_missing_cell_says_why(change: dict[str, Any], runtime: str, reason: str | None) -> None:
    said = why_not(replace(FOLDED, **change), runtime)
    assert said is None if reason is None else said is not None and reason in said


@pytest.mark.parametrize(
    ("extra", "installation"),
    [("paper", "needs pip install 'quantserve[paper]'"), (None, "needs pip install no-such-paper")],
)
def test_a_runtime_that_is_not_installed_says_what_brings_it(
    paper: Paper, monkeypatch: pytest.MonkeyPatch, extra: str | None, installation: str
) -> None:
    runtime = replace(RUNTIMES["paper"], preparing_packages=("no-such-paper",), extra=extra)
    assert missing_packages(runtime) == ["no-such-paper"]
    monkeypatch.setattr(matrix, "RUNTIMES", {"paper": runtime})
    assert why_not(FOLDED, "paper") == installation


@pytest.mark.usefixtures("paper")
def test_an_entry_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(RECIPES), "_places", {"broken": "no_such_module:RECIPE"})
    with pytest.raises(ConfigError, match="recipe 'broken': no_such_module:RECIPE cannot be used"):
        why_not(replace(FOLDED, recipe="broken"), "paper")


@pytest.mark.usefixtures("paper")
def test_what_is_possible_instead_is_listed() -> None:
    said = describe_possible(replace(FOLDED, recipe="bf16"), "paper")
    others, own = said.split("; ")
    assert others.startswith("recipe 'bf16' works on: ")
    assert "torch" in others
    assert "paper" not in others
    assert own == "runtime 'paper' can: fp32, folded, measured"


@pytest.mark.usefixtures("paper")
def test_where_nothing_is_possible_that_is_said() -> None:
    stone = replace(FOLDED, config={"model_type": "stone"})
    assert describe_possible(stone, "paper") == (
        "recipe 'folded' works on: no other runtime; runtime 'paper' can: no other recipe"
    )


def test_versions_are_those_that_are_installed() -> None:
    assert installed_version("no-such-paper") is None
    assert installed_version("pytest") == pytest.__version__


def test_every_cell_of_our_own_tables_has_an_answer() -> None:
    for runtime in RUNTIMES:
        for recipe in RECIPES:
            for kind in ("encoder", "generator"):
                for device in ("cpu", "cuda"):
                    said = why_not(Combination(recipe, kind, device, "safetensors"), runtime)
                    assert said is None or said.strip()


def test_every_runtime_has_its_plainest_recipe() -> None:
    fp32 = Combination("fp32", "encoder", "cpu", "safetensors")
    plainest = dict.fromkeys(RUNTIMES, fp32)
    plainest["llama.cpp"] = replace(fp32, recipe="f16", kind="generator")
    plainest["tensorrt"] = replace(fp32, device="cuda")
    said = {runtime: why_not(combination, runtime) for runtime, combination in plainest.items()}
    expected: dict[str, str | None] = dict.fromkeys(RUNTIMES)
    if installed_version("tensorrt") is None:  # its wheels come from NVIDIA's own index
        expected["tensorrt"] = "needs pip install tensorrt"
    assert said == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"recipe": "fp32"}, "llama.cpp has no recipe fp32; it has f16, q8_0,"),
        ({"recipe": "f16", "kind": "encoder"}, "llama.cpp makes generators only"),
        ({"recipe": "q8_0", "kind": "encoder"}, "no encoders in q8_0"),
        ({"recipe": "stored"}, "in its blocks of 32; this checkpoint is not quantized"),
        (
            {"recipe": "q4_0", "format": "gguf"},
            "q4_0 is made of safetensors checkpoints; this is gguf",
        ),
        ({"config": {"model_type": "mamba"}}, "this checkpoint is 'mamba'"),
        (
            {"recipe": "stored", "format": "gguf", "config": {"model_type": "rwkv6"}},
            "gemma, gemma2, gemma3, llama, phi2, phi3, qwen2, qwen3; this checkpoint is 'rwkv6'",
        ),
        (
            {"config": {"model_type": "qwen3", "attention_bias": True}},
            "llama.cpp knows no qwen3 with biases in attention",
        ),
        ({"config": {"model_type": "gemma2"}}, None),
        ({"recipe": "stored", "format": "gguf", "config": {"model_type": "llama"}}, None),
    ],
)
def test_what_llama_cpp_cannot_is_refused(change: dict[str, Any], reason: str | None) -> None:
    combination = replace(Combination("q8_0", "generator", "cpu", "safetensors"), **change)
    said = why_not(combination, "llama.cpp")
    assert said is None if reason is None else said is not None and reason in said


@pytest.mark.parametrize(("architecture", "refused"), [("mamba", True), ("llama", False)])
def test_an_architecture_that_cannot_be_generated_with_is_refused(
    architecture: str, refused: bool
) -> None:
    config = {"model_type": architecture}
    said = why_not(Combination("fp32", "generator", "cpu", "safetensors", config), "torch")
    assert (said is not None and f"this checkpoint is {architecture!r}" in said) == refused
