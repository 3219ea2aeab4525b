"""What an artifact is made of, and which models are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.errors import ConfigError
from serving.runtimes.openvino.generation.opening import open_decoder
from serving.runtimes.openvino.generation.preparing import check_answers, prepare_generator
from serving.runtimes.openvino.generation.stateful_graph import convert
from serving.runtimes.openvino.opening import GRAPH, WEIGHTS
from serving.runtimes.openvino.runtime import why_not
from serving.seams import Combination, Segment
from tests.unit.runtimes.openvino.generation.conftest import Artifact
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    logits_of,
    open_request,
    prepare_request,
    random_model,
    random_tokens,
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


def refusal(max_tokens: int | None = None, **config: Any) -> str | None:
    return why_not(Combination("fp32", "generator", "cpu", "safetensors", config, max_tokens))


def test_an_unknown_architecture_is_refused_with_the_known() -> None:
    assert refusal(model_type="llama") is None
    assert refusal(model_type="mamba") == (
        "generation on openvino knows the architectures llama, mistral, qwen2, qwen3, gemma, "
        "gemma3_text, phi3, gpt2, gpt_neox; this checkpoint is 'mamba'"
    )


def test_a_window_is_served_as_long_as_everything_fits_in_it(tmp_path: Path) -> None:
    assert refusal(60, model_type="mistral", sliding_window=60) is None
    reason = "see the latest 60 tokens, and sequences may have 61; .* max_tokens of 60 or fewer"
    assert re.search(reason, refusal(61, model_type="mistral", sliding_window=60) or "")
    config = {**MODELS["gemma3"], "sliding_window": 60}
    checkpoint = save_generator(tmp_path / "checkpoint", **config)
    (tmp_path / "artifact").mkdir()
    prepare_generator(prepare_request("fp32", checkpoint, tmp_path / "artifact"))
    tokens = random_tokens(60, seed=3)
    decoder = open_decoder(open_request("fp32", tmp_path / "artifact", slot_tokens=60))
    expected = logits_of(random_model(**config), tokens)
    found = decoder.step([Segment(0, 0, tokens, 60)])
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std(), rtol=0)
    with pytest.raises(ConfigError, match=reason):
        open_decoder(open_request("fp32", tmp_path / "artifact", slot_tokens=61))
