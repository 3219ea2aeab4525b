"""What a replica has imported once it answers: its runtime, and nothing that only others need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from serving.app.plan import make_plan
from serving.artifacts import ArtifactStore, ensure
from serving.demo.prepare import encoder_folder
from serving.settings import load_config

PREPARING = {"transformers", "nncf", "onnx", "onnxscript", "safetensors.torch", "torchao"}
HEAVY = {"scipy", "pandas", "matplotlib", "sympy", "huggingface_hub"}

MODULES = {"litert": "ai_edge_litert", "tvm": "tvm_ffi"}
"""What runtimes import that is named otherwise."""

REPLICA = """
import asyncio, json, sys
from pathlib import Path

from serving.app.plan import make_plan
from serving.config import ServerConfig
from serving.replica import deployment  # Ray and the routes, as a replica has them
from serving.replica.loading import load_variant
from serving.seams import NO_OPTIONS, InferenceRequest
from serving.settings import load_config

config = load_config(Path(sys.argv[1]))
(planned,) = make_plan(config).variants


async def answer():
    loaded = await load_variant(
        planned.model, planned.variant, planned.artifact, Path(sys.argv[2]), ServerConfig(), "r"
    )
    outcome = await loaded.backend.infer(InferenceRequest(("a b",), True, NO_OPTIONS, 30))
    print(json.dumps([outcome.rows.shape, sorted(sys.modules)]))


asyncio.run(answer())
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT of random weights with MiniLM's tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**sizes, intermediate_size=64)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).write_bytes((encoder_folder() / name).read_bytes())
    return folder


@pytest.mark.parametrize(
    ("runtime", "recipe", "absent"),
    [
        ("openvino", "int8-static", {"torch", "onnxruntime", *PREPARING, *HEAVY}),
        ("onnxruntime", "int8-dynamic", {"torch", "openvino", *PREPARING, *HEAVY}),
        ("litert", "int8-dynamic", {"torch", "openvino", "onnxruntime", *PREPARING, *HEAVY}),
        ("tvm", "fp32", {"tvm", "torch", "openvino", "onnxruntime", *PREPARING, *HEAVY}),
        ("torch", "int8-dynamic", {"torchao", "openvino", "onnxruntime", "scipy", "pandas"}),
    ],
)
def test_a_replica_imports_its_runtime_and_little_else(
    tmp_path: Path, checkpoint: Path, runtime: str, recipe: str, absent: set[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"models: [{{name: tiny, task: embeddings, source: {checkpoint}, "
        f"variants: [{{name: lean, recipe: {recipe}, runtime: {runtime}}}]}}]\n"
    )
    store = tmp_path / "artifacts"
    (planned,) = make_plan(load_config(file)).variants
    ensure(planned.artifact, ArtifactStore(store))
    command = [sys.executable, "-c", REPLICA, str(file), str(store)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    shape, modules = json.loads(output.splitlines()[-1])
    assert shape == [1, 64]
    assert MODULES.get(runtime, runtime) in modules
    assert sorted(absent & set(modules)) == []
