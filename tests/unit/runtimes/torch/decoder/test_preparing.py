"""What is prepared and opened again is the model that was converted, whatever its source."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from serving.errors import ConfigError, SourceError
from serving.runtimes.torch.decoder.opening import open_decoder
from serving.runtimes.torch.decoder.preparing import prepare_generator
from serving.seams import Checkpoint, Decoder, Segment
from tests.matrix import pairs
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    TORCH_RECIPES,
    decoder_of,
    logits_of,
    numerics_of,
    open_request,
    prepare_request,
    random_model,
    random_tokens,
    save_generator,
    save_gguf,
)

TOKENS = random_tokens(90, seed=3)


def opened(recipe: str, checkpoint: Checkpoint, folder: Path, slot_tokens: int = 128) -> Decoder:
    prepare_generator(prepare_request(recipe, checkpoint, folder))
    return open_decoder(open_request(recipe, folder, slot_tokens=slot_tokens))


def logits(decoder: Decoder) -> NDArray[np.float32]:
    return np.concatenate([decoder.step([Segment(1, 0, TOKENS, 90)]), decoder.step([LAST])])


LAST = Segment(1, 90, [5])


NAMES = (
    *("llama", "qwen3-biases", "llama3-rope", "yarn-rope"),
    *("gemma2", "gemma3", "phi3-partial", "gpt2", "gpt-neox"),
)


@pytest.mark.parametrize(("recipe", "name"), pairs(TORCH_RECIPES, NAMES))
def test_an_opened_decoder_has_the_logits_of_the_converted_model(
    recipe: str, name: str, tmp_path: Path
) -> None:
    """To the last bit: the same numbers, in the same layouts, through the same kernels."""
    (tmp_path / "artifact").mkdir()
    checkpoint = save_generator(tmp_path / "checkpoint", **MODELS[name])
    decoder = opened(recipe, checkpoint, tmp_path / "artifact")
    converted = decoder_of(random_model(**MODELS[name]), numerics_of(recipe))
    np.testing.assert_array_equal(logits(decoder), logits(converted))


def test_positions_go_as_far_as_the_opener_wants(tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    checkpoint = save_generator(tmp_path / "checkpoint", **MODELS["yarn-rope"])
    decoder = opened("fp32", checkpoint, tmp_path / "artifact", slot_tokens=250)
    tokens = random_tokens(250, seed=4)
    found = decoder.step([Segment(0, 0, tokens, 250)])
    expected = logits_of(random_model(**MODELS["yarn-rope"]), tokens)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)  # as in ``test_fusing``


@pytest.mark.parametrize("recipe", TORCH_RECIPES)
def test_a_gguf_file_is_prepared_like_any_other(recipe: str, tmp_path: Path) -> None:
    checkpoint = save_gguf(tmp_path, **MODELS["llama-untied"])
    (tmp_path / "artifact").mkdir()
    found = logits(opened(recipe, checkpoint, tmp_path / "artifact"))
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint.folder, gguf_file=checkpoint.gguf_file, dtype=torch.float32
    )
    np.testing.assert_array_equal(found, logits(decoder_of(model, numerics_of(recipe))))


def test_what_is_prepared_is_counted_and_said(tmp_path: Path) -> None:
    checkpoint = save_generator(tmp_path / "checkpoint", **MODELS["llama"])
    (tmp_path / "artifact").mkdir()
    prepared = prepare_generator(prepare_request("int4", checkpoint, tmp_path / "artifact"))
    decoder = open_decoder(open_request("int4", tmp_path / "artifact"))
    assert prepared.weights_bytes == decoder.footprint().weights_bytes
    assert prepared.notes == (
        f"{prepared.weights_bytes / 1024**2:.0f} MiB of weights serve from the mapped file, "
        "0 MiB are packed by each replica for itself",
    )


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint = save_generator(tmp_path / "checkpoint", model_type="gptj", n_embd=64, n_layer=1)
    with pytest.raises(ConfigError, match=r"llama, mistral, qwen2, qwen3.*'gptj'"):
        prepare_generator(prepare_request("fp32", checkpoint, tmp_path))


def test_a_window_is_served_as_long_as_everything_fits_in_it(tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    checkpoint = save_generator(
        tmp_path / "checkpoint", **{**MODELS["gemma3"], "sliding_window": 60}
    )
    decoder = opened("fp32", checkpoint, tmp_path / "artifact", slot_tokens=60)
    expected = logits_of(random_model(**{**MODELS["gemma3"], "sliding_window": 60}), TOKENS)
    found = decoder.step([Segment(0, 0, TOKENS[:60], 60)])
    np.testing.assert_allclose(found, expected[:60], atol=1e-4 * expected.std(), rtol=0)
    with pytest.raises(ConfigError, match="see the latest 60 tokens, and sequences may have 61"):
        open_decoder(open_request("fp32", tmp_path / "artifact", slot_tokens=61))


def test_a_checkpoint_that_cannot_generate_is_refused(tmp_path: Path) -> None:
    checkpoint = save_generator(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"vit"'))
    with pytest.raises(SourceError, match="AutoModelForCausalLM"):
        prepare_generator(prepare_request("fp32", checkpoint, tmp_path))


def test_kernels_of_another_recipe_are_refused(tmp_path: Path) -> None:
    checkpoint = save_generator(tmp_path / "checkpoint", **MODELS["llama"])
    (tmp_path / "artifact").mkdir()
    prepare_generator(prepare_request("int4", checkpoint, tmp_path / "artifact"))
    with pytest.raises(ConfigError, match="is no kernel of this recipe; it has PrepackedLinear"):
        open_decoder(open_request("fp32", tmp_path / "artifact"))


LEAN = """
import asyncio, json, sys
from pathlib import Path
from serving.cores import UnsharedCores
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import GREEDY, OpenGeneratorRequest, TokenRequest
folder, *recipes = sys.argv[1:]

async def first_tokens(recipe):
    place, options, cores = Path(folder, recipe), RECIPES[recipe].options(), UnsharedCores(1)
    request = OpenGeneratorRequest(place, recipe, options, "cpu", 1, cores, 2, 2, 64)
    engine = RUNTIMES["torch"].open_generator(request)
    asked = TokenRequest((1, 2, 3), 4, frozenset(), GREEDY)
    tokens = [generated.token async for generated in engine.generate(asked)]
    engine.close()
    return tokens

tokens = [asyncio.run(first_tokens(recipe)) for recipe in recipes]
print(json.dumps([tokens, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_a_replica_imports_neither_transformers_nor_torchao(tmp_path: Path) -> None:
    """Of no recipe: all are opened in one process."""
    checkpoint = save_generator(tmp_path / "checkpoint", **MODELS["llama"])
    for recipe in TORCH_RECIPES:
        (tmp_path / recipe).mkdir()
        prepare_generator(prepare_request(recipe, checkpoint, tmp_path / recipe))
    child = subprocess.run(
        [sys.executable, "-c", LEAN, str(tmp_path), *TORCH_RECIPES],
        check=True,
        capture_output=True,
        text=True,
    )
    tokens, imported = json.loads(child.stdout)
    assert [len(of_recipe) for of_recipe in tokens] == [4] * len(TORCH_RECIPES)
    assert {"torch", "safetensors"} <= set(imported)
    assert not {"transformers", "torchao", "tokenizers", "scipy", "sklearn"} & set(imported)
