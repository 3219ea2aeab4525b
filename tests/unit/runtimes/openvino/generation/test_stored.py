"""``stored`` on openvino: the integers of others' checkpoints, served as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from numpy.typing import NDArray

from serving.checkpoint import read_config, read_headers
from serving.errors import ConfigError
from serving.quantized_checkpoints.integer_weight import IntegerWeight, even_groups
from serving.recipes import RECIPES
from serving.runtimes.matrix import why_not
from serving.runtimes.openvino.generation.opening import open_decoder
from serving.runtimes.openvino.generation.preparing import prepare_generator
from serving.runtimes.openvino.generation.stateful_graph import convert
from serving.runtimes.openvino.opening import GRAPH
from serving.runtimes.openvino.runtime import RUNTIME
from serving.runtimes.openvino.stored_integers import keep_integers
from serving.runtimes.torch.expanding import read_integers
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Checkpoint, Combination, Segment, SizeRequest
from tests.matrix import takes_all
from tests.unit.runtimes.stored_checkpoints import CHECKPOINTS, Made, make
from tests.unit.runtimes.tiny_generators import open_request, save_generator

NOTES = {
    "awq": "7 linear layers in u4 (groups of 32), 1 in f32",
    "gptq-4bit": "7 linear layers in u4 (groups of 32), 1 in f32",
    "gptq-4bit-act-order": "7 linear layers in u4 (groups of 32), 1 in f32",
    "gptq-8bit-act-order": "7 linear layers in u8, 1 in f32",
    "w4a16": "7 linear layers in i4 (groups of 32), 1 in f32",
    "w4a16-asymmetric": "7 linear layers in u4 (groups of 32), 1 in f32",
    "w8a8": "7 linear layers in i8, 1 in f32",
    "w8a8-asymmetric": "7 linear layers in u8, 1 in f32",
    "bitsandbytes-int8": "7 linear layers in i8, 1 in f32",
    "quanto-int8": "7 linear layers in i8, 1 in f32",
    "torchao-int8": "7 linear layers in i8, 1 in f32",
    "torchao-int8-dynamic": "7 linear layers in i8, 1 in f32",
    "torchao-8da4w": "7 linear layers in i4 (groups of 32), 1 in f32",
    "torchao-by-name": "7 linear layers in i4 (groups of 32), 1 in f32",
    "torchao-int4-asymmetric": "7 linear layers in u4 (groups of 32), 1 in f32",
}
"""What each checkpoint's artifact says of its layers; the last one none of them quantized."""

TAKEN = ("gptq-4bit", "gptq-8bit-act-order", "w4a16", "w8a8")
"""One of each way in which integers lie, one of them sorted by activations, unless all are wanted;
how each checkpoint is read has tests of its own."""

NAMES = [name for name in NOTES if takes_all() or name in TAKEN]

each_kept = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """In ``stored`` and in ``fp32``."""
    return make(prepare_generator, NAMES, ("stored", "fp32"), tmp_path_factory.mktemp)


@each_kept
def test_layers_keep_their_bits(made: Made, name: str) -> None:
    assert made[name, "stored"][1].notes == (NOTES[name],)


@each_kept
def test_weights_are_the_expanded_ones_to_the_last_bit(made: Made, name: str) -> None:
    """Computed by OpenVINO itself from the artifact's constants."""
    core = openvino.Core()
    graph = core.read_model(made[name, "stored"][0] / GRAPH)
    products = {
        node.get_friendly_name(): node
        for node in graph.get_ops()
        if node.get_type_name() == "MatMul"
    }
    layers = dict(read_integers(Checkpoint(CHECKPOINTS / name)))
    assert len(layers) == 7
    for layer, weight in layers.items():
        [product] = [node for place, node in products.items() if layer in place]
        alone = openvino.Model([product.input_value(1)], [])
        found = core.compile_model(alone, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([])[0]
        order = np.arange(found.shape[1])
        if (inputs := product.input_value(0).get_node()).get_type_name() == "Gather":
            order = inputs.input_value(1).get_node().data
        assert np.array_equal(found, weight.expanded().numpy()[:, order])
        is_by_activation = "act-order" in name
        assert (order != np.arange(found.shape[1])).any() == is_by_activation


def logits_of(folder: Path, recipe: str) -> NDArray[np.float32]:
    decoder = open_decoder(open_request(recipe, folder, slot_tokens=64))
    tokens = np.random.default_rng(0).integers(64, size=50).tolist()
    return decoder.step([Segment(0, 0, tokens, len(tokens))])


@each_kept
def test_answers_are_those_of_the_expanded_model(made: Made, name: str) -> None:
    found, expected = (logits_of(made[name, recipe][0], recipe) for recipe in ("stored", "fp32"))
    change = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    # Another order of float32 sums.
    assert change.max() < 1e-5


@each_kept
def test_the_estimate_is_what_the_file_holds(made: Made, name: str) -> None:
    checkpoint = Checkpoint(CHECKPOINTS / name)
    shapes = read_headers(checkpoint).shapes
    options = RECIPES["stored"].options()
    estimate = RUNTIME.estimate(SizeRequest("stored", options, "generator", "cpu", shapes))
    decoder = open_decoder(open_request("stored", made[name, "stored"][0], slot_tokens=64))
    # In a model as small as this one the order of its inputs is a part of a layer that counts.
    order = sum(4 * weight.codes.shape[1] for _, weight in read_integers(checkpoint))
    expected = estimate.weights_bytes + ("act-order" in name) * order
    assert decoder.footprint().weights_bytes == pytest.approx(expected, rel=0.02)


def reason_for(config: dict[str, Any]) -> str | None:
    return why_not(Combination("stored", "generator", "cpu", "safetensors", config), "openvino")


@each_kept
def test_what_can_be_kept_is_possible(name: str) -> None:
    assert reason_for(read_config(Checkpoint(CHECKPOINTS / name))) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gptq-2bit", "integers of 2 bits; 4 and 8 are kept"),
        ("gptq-3bit", "integers of 3 bits"),
        ("w3a16", "integers of 3 bits"),
        ("w8a8-fp8", "of 'compressed-tensors', are no integers with scales"),
        ("fp8", "of 'fp8', are no integers with scales"),
        ("bitsandbytes-nf4", "of 'bitsandbytes', are no integers with scales"),
        ("hqq-4bit", "of 'hqq', are no integers with scales"),
        ("quanto-int4", "of 'quanto', are no integers with scales"),
        ("quanto-float8", "of 'quanto', are no integers with scales"),
        ("torchao-int4", "of 'torchao', are no integers with scales"),
        ("torchao-float8", "of 'torchao', are no integers with scales"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(name: str, reason: str) -> None:
    said = reason_for(read_config(Checkpoint(CHECKPOINTS / name)))
    assert said is not None
    assert said.startswith("on openvino, stored keeps the integers of quantized checkpoints; ")
    assert reason in said


def test_floats_have_no_integers_to_keep() -> None:
    assert "is not quantized" in str(reason_for({"model_type": "llama"}))


def weight_of(linear: torch.Tensor, **changes: Any) -> IntegerWeight:
    """A weight whose integers stand for exactly the numbers of ``linear``, of 4-bit codes."""
    rows, columns = linear.shape
    whole: dict[str, Any] = {
        "codes": (linear * 8).to(torch.int16) + 8,
        "scales": torch.full((rows, 2), 0.125),
        "zeros": torch.full((rows, 2), 8.0),
        "group_of": even_groups(columns, 2),
        "bits": 4,
    }
    return IntegerWeight(**{**whole, **changes})


def graph_and_layer(folder: Path) -> tuple[openvino.Model, torch.Tensor]:
    """A graph, one of whose layers has numbers that 4 bits can hold, and these numbers."""
    checkpoint = save_generator(folder, num_hidden_layers=1)
    model: Any = load_pretrained(checkpoint, "AutoModelForCausalLM", torch.float32)
    linear = model.model.layers[0].mlp.up_proj
    linear.weight.data = torch.randint(-8, 8, linear.weight.shape) / 8
    return convert(model, "tiny"), linear.weight.data


def test_numbers_that_conversion_changed_are_refused(tmp_path: Path) -> None:
    graph, linear = graph_and_layer(tmp_path)
    keep_integers(graph, [("mlp.up_proj", weight_of(linear))], "tiny")
    graph, linear = graph_and_layer(tmp_path)
    other = weight_of(linear)
    other.codes[3, 5] ^= 1
    with pytest.raises(ConfigError, match=r"tiny: .*, mlp\.up_proj has other numbers"):
        keep_integers(graph, [("mlp.up_proj", other)], "tiny")


def test_uneven_groups_and_broken_zeros_are_refused(tmp_path: Path) -> None:
    graph, linear = graph_and_layer(tmp_path)
    uneven = weight_of(linear)
    uneven.group_of[64] = 0
    with pytest.raises(ConfigError, match=r"up_proj has groups of different sizes"):
        keep_integers(graph, [("up_proj", uneven)], "tiny")
    graph, linear = graph_and_layer(tmp_path)
    # Codes of half a step: numbers between those that whole zeros reach.
    halves = weight_of(linear, zeros=torch.full((len(linear), 2), 7.5))
    changed = (halves.codes - 7.5) * 0.125
    node = next(
        node
        for node in graph.get_ops()
        if node.get_type_name() == "MatMul" and "up_proj" in node.get_friendly_name()
    )
    constant = openvino.opset13.constant(changed.numpy())
    node.input(1).replace_source_output(constant.output(0))
    with pytest.raises(ConfigError, match=r"up_proj has zeros that are no whole numbers of 4 bits"):
        keep_integers(graph, [("up_proj", halves)], "tiny")
