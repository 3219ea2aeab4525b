"""What an artifact is made of, and which models are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.runtimes.openvino.generation.preparing import check_answers, prepare_generator
from serving.runtimes.openvino.generation.stateful_graph import convert
from serving.runtimes.openvino.opening import GRAPH, WEIGHTS
from serving.runtimes.openvino.runtime import why_not
from serving.seams import Combination
from tests.unit.runtimes.openvino.generation.conftest import Artifact
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    prepare_request,
    random_model,
    save_generator,
)


def test_a_graph_that_answers_otherwise_is_refused() -> None:
    one, other = (random_model(seed, **MODELS["llama"]) for seed in (0, 1))
    graph = convert(one, "one")
    check_answers(graph, one, "one")
    with pytest.raises(ConfigError, match=r"other: .* answers otherwise than in torch"):
        check_answers(graph, other, "other")


def test_what_sdpa_leaves_out_is_found_out() -> None:
    """Gemma 2 caps the scores of its attention, which no fused attention does."""
    model = random_model(model_type="gemma2", head_dim=32, attn_logit_softcapping=2.0)
    with pytest.raises(ConfigError, match=r"capped: .* serve it on another runtime"):
        check_answers(convert(model, "capped"), model, "capped")


def test_what_cannot_be_traced_is_refused() -> None:
    model = random_model(**MODELS["llama"])
    model.model.layers[1].mlp.forward = lambda x: x.to_sparse()
    with pytest.raises(ConfigError, match="OpenVINO cannot convert the model"):
        convert(model, "sparse")


def test_only_the_files_that_are_opened_are_left(artifact: Artifact) -> None:
    files = {path.name for path in artifact("int8-weights", "llama").iterdir()}
    assert files == {GRAPH, WEIGHTS}


@pytest.mark.parametrize(
    ("recipe", "note"),
    [
        ("fp32", "22 linear layers in f32"),
        ("bf16", "22 linear layers in f16"),
        ("int8-weights", "22 linear layers in u8"),
        ("int4", "21 linear layers in u4 (groups of 64), 1 in u8"),
    ],
)
def test_the_notes_say_how_layers_are_kept(tmp_path: Path, recipe: str, note: str) -> None:
    checkpoint = save_generator(tmp_path / "model", **MODELS["llama"])
    (tmp_path / "artifact").mkdir()
    prepared = prepare_generator(prepare_request(recipe, checkpoint, tmp_path / "artifact"))
    assert prepared.notes == (note,)


def refusal(recipe: str = "fp32", **config: str) -> str | None:
    return why_not(Combination(recipe, "generator", "cpu", "safetensors", config))


def test_an_unknown_architecture_is_refused_with_the_known() -> None:
    assert refusal(model_type="llama") is None
    assert refusal(model_type="mamba") == (
        "generation on openvino knows the architectures llama, mistral, qwen2, qwen3; "
        "this checkpoint is 'mamba'"
    )
