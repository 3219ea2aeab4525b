"""What a recipe makes of a model for a GPU, with the CPU in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from serving.checkpoint import weight_shapes
from serving.recipes import RECIPES
from serving.runtimes.torch.conversions import CONVERSIONS
from serving.runtimes.torch.cuda.linear_layers import (
    CudaFp8Linear,
    CudaInt4Linear,
    CudaInt8Linear,
)
from serving.runtimes.torch.encoder import TorchEncoder
from serving.runtimes.torch.footprint import weights_bytes
from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
from serving.runtimes.torch.pooling import AUTO_CLASSES
from serving.runtimes.torch.pretrained import load_pretrained
from serving.runtimes.torch.sizes import estimate
from serving.seams import Checkpoint, SizeRequest
from tests.unit.runtimes.tiny_generators import MODELS, logits_of, random_tokens, save_generator
from tests.unit.runtimes.tiny_models import HEADS, one_row, padded_batch, save_model

ON_GPUS = [name for name in CONVERSIONS if CONVERSIONS[name].move_to_gpu is not None]
LAYERS = {"int8-dynamic": CudaInt8Linear, "int4": CudaInt4Linear, "fp8": CudaFp8Linear}
FLOATS = {"fp32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def moved(recipe: str, checkpoint: Checkpoint, auto_class: str) -> nn.Module:
    move_to_gpu = CONVERSIONS[recipe].move_to_gpu
    assert move_to_gpu is not None
    model = load_pretrained(checkpoint, auto_class, torch.float32)
    return move_to_gpu(model, RECIPES[recipe].options(), "cpu")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save_model(tmp_path_factory.mktemp("classifier"), "classification")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save_generator(tmp_path_factory.mktemp("llama"), **MODELS["llama"])


def encoder_of(recipe: str, checkpoint: Checkpoint) -> TorchEncoder:
    head = HEADS["classification"]
    return TorchEncoder(moved(recipe, checkpoint, AUTO_CLASSES[type(head)]), head, "cpu", 1)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / lengths).mean())


def kinds(model: nn.Module) -> Sequence[type[nn.Module]]:
    return [type(module) for module in model.modules()]


def test_these_recipes_have_a_form_for_gpus() -> None:
    assert set(ON_GPUS) == {*LAYERS, *FLOATS}


@pytest.mark.parametrize("recipe", ON_GPUS)
def test_an_encoder_keeps_to_its_recipe(recipe: str, classifier: Checkpoint) -> None:
    expectation = RECIPES[recipe].encoder
    assert expectation is not None
    engine = encoder_of(recipe, classifier)
    batch = padded_batch([5, 40, 12, 33])
    rows = engine.forward(batch)
    expected = encoder_of("fp32", classifier).forward(batch)
    assert cosine(rows, expected) >= expectation.cosine
    alone = np.concatenate([engine.forward(one_row(batch, i)) for i in range(4)])
    change = np.linalg.norm(rows - alone, axis=1) / np.linalg.norm(alone, axis=1)
    assert change.max() < expectation.batch_change


@pytest.mark.parametrize("recipe", ON_GPUS)
def test_a_generator_keeps_to_its_recipe(recipe: str, llama: Checkpoint) -> None:
    expectation = RECIPES[recipe].generator
    assert expectation is not None
    tokens = random_tokens(100, seed=1)
    found, expected = (
        logits_of(moved(name, llama, "AutoModelForCausalLM"), tokens) for name in (recipe, "fp32")
    )
    assert cosine(found, expected) >= expectation.cosine
    assert (found.argmax(1) == expected.argmax(1)).mean() >= expectation.same_top


@pytest.mark.parametrize("recipe", ON_GPUS)
def test_its_size_is_what_was_estimated(recipe: str, classifier: Checkpoint) -> None:
    model = moved(recipe, classifier, AUTO_CLASSES[type(HEADS["classification"])])
    options = RECIPES[recipe].options()
    request = SizeRequest(recipe, options, "encoder", "cuda", weight_shapes(classifier))
    # Biases, norms and what a CPU's kernel pads weigh something in a model so small.
    assert weights_bytes(model) == pytest.approx(estimate(request).weights_bytes, rel=0.05)


@pytest.mark.parametrize("recipe", LAYERS)
def test_experts_are_no_linear_layers(recipe: str, tmp_path: Path) -> None:
    """They stay bfloat16, and are counted so: files have each of them for itself."""
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    mixture = save_generator(tmp_path, model_type="qwen3_moe", head_dim=32, **sizes)
    shapes = weight_shapes(mixture)
    assert sum(".mlp.experts." in shape.name for shape in shapes) == 3 * 4 * 3
    model = moved(recipe, mixture, "AutoModelForCausalLM")
    experts = [part for name, part in model.named_parameters() if ".experts." in name]
    assert {(part.dtype, part.dim()) for part in experts} == {(torch.bfloat16, 3)}
    request = SizeRequest(recipe, RECIPES[recipe].options(), "generator", "cuda", shapes)
    assert weights_bytes(model) == pytest.approx(estimate(request).weights_bytes, rel=0.05)


@pytest.mark.parametrize("recipe", LAYERS)
def test_large_layers_and_tables_are_quantized_and_poolers_are_not(
    recipe: str, classifier: Checkpoint
) -> None:
    model = moved(recipe, classifier, AUTO_CLASSES[type(HEADS["classification"])])
    assert kinds(model).count(LAYERS[recipe]) == 2 * 6  # of two layers
    assert kinds(model).count(Int8Embedding) == 3
    floats = [module for module in model.modules() if type(module) is nn.Linear]
    assert len(floats) == 2  # the pooler and the classifier
    assert {module.weight.dtype for module in floats} == {torch.bfloat16}


@pytest.mark.parametrize("recipe", FLOATS)
def test_floats_are_all_of_one_type(recipe: str, llama: Checkpoint) -> None:
    model = moved(recipe, llama, "AutoModelForCausalLM")
    assert {parameter.dtype for parameter in model.parameters()} == {FLOATS[recipe]}


@pytest.mark.parametrize("recipe", LAYERS)
def test_layers_of_odd_sizes_stay_in_bfloat16(recipe: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 120, "num_attention_heads": 4, "intermediate_size": 200}
    checkpoint = save_model(tmp_path, "classification", **sizes)
    model = moved(recipe, checkpoint, AUTO_CLASSES[type(HEADS["classification"])])
    assert LAYERS[recipe] not in kinds(model)
    engine = encoder_of(recipe, checkpoint)
    assert np.isfinite(engine.forward(padded_batch([5, 9]))).all()
