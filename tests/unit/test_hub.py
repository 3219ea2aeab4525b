"""Fetching from a hub: its real client against a small hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save

from serving.checkpoint import source_files
from serving.checkpoint_json import QUANTIZATION_FILES
from serving.hub import read_headers_on_hub
from serving.seams import Checkpoint
from tests.unit.small_hub import COMMIT, SmallHub

ROOT = Path(__file__).parents[2]

# In a process of its own: the client reads its settings when it is imported.
FIND = """
import json, sys
from serving.checkpoint import find_checkpoint
from serving.errors import SourceError
try:
    folder = find_checkpoint("minilm", *json.loads(sys.argv[1])).folder
except SourceError as error:
    sys.exit(str(error))
print(json.dumps(str(folder)))
"""

WEIGHTS = save({"a": np.arange(1 << 18, dtype=np.float32)})
READ = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "special_tokens_map.json": b"{}",
    "vocab.txt": b"a",
    "spiece.model": b"a",
    "chat_template.jinja": b"{{ messages }}",
    "additional_chat_templates/tool_use.jinja": b"{{ tools }}",
    "modules.json": json.dumps(
        [{"path": "", "type": "a.Transformer"}, {"path": "2_Dense", "type": "a.Dense"}]
    ).encode(),
    "sentence_bert_config.json": b"{}",
    "config_sentence_transformers.json": b"{}",
    "2_Dense/config.json": b"{}",
    "2_Dense/model.safetensors": save({"b": np.zeros(4, np.float32)}),
    "model.safetensors": WEIGHTS,
}
NOT_READ = dict.fromkeys(
    (
        *("pytorch_model.bin", "model.fp16.safetensors", "consolidated.safetensors", "tf_model.h5"),
        *("onnx/model.onnx", "onnx/config.json", "openvino/openvino_model.bin", "modeling.py"),
        "README.md",
    ),
    b"x",
)

Ask = Callable[..., subprocess.CompletedProcess[str]]
Find = Callable[..., str]


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    with SmallHub({**READ, **NOT_READ}).running() as hub:
        yield hub


@pytest.fixture
def ask(hub: SmallHub, tmp_path: Path) -> Ask:
    """Runs Python with arguments in a new process whose hub is the small one."""

    def ask(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {name: text for name, text in os.environ.items() if name[:3] != "HF_"}
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")}
        child = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**environment, **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "Traceback" not in child.stderr
        return child

    return ask


@pytest.fixture
def find(ask: Ask) -> Find:
    """Finds a source of the hub; returns its folder, or what was said."""

    def find(source: str = "hf:org/model@main", *, trust: bool = False, **settings: str) -> str:
        child = ask("-c", FIND, json.dumps([source, trust]), **settings)
        if child.returncode == 0:
            return str(json.loads(child.stdout))
        return child.stderr.strip().splitlines()[-1]

    return find


def names(folder: str) -> set[str]:
    return {str(f.relative_to(folder)) for f in Path(folder).rglob("*") if not f.is_dir()}


def test_what_the_loader_reads_is_fetched_and_nothing_else(find: Find) -> None:
    folder = find()
    assert names(folder) == set(READ)
    assert (Path(folder) / "model.safetensors").read_bytes() == WEIGHTS
    # What decides the answers is what an artifact's key is made of.
    found = {str(file.relative_to(folder)) for file in source_files(Checkpoint(Path(folder)))}
    assert found == set(READ)


def test_code_comes_along_by_leave(find: Find) -> None:
    assert "modeling.py" in names(find(trust=True))


def test_shards_are_those_that_the_index_names(hub: SmallHub, find: Find) -> None:
    del hub.files["model.safetensors"]
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    hub.files["model.safetensors.index.json"] = json.dumps(index).encode()
    parts = dict.fromkeys(("part-1.safetensors", "part-2.safetensors"), WEIGHTS)
    hub.files |= {**parts, "part-3.safetensors": WEIGHTS}
    fetched = names(find())
    assert {*parts, "model.safetensors.index.json"} <= fetched
    assert "part-3.safetensors" not in fetched


def test_a_commit_is_a_revision(find: Find) -> None:
    assert find(f"hf:org/model@{COMMIT}").endswith(COMMIT)


def test_a_download_that_broke_off_goes_on_where_it_did(hub: SmallHub, find: Find) -> None:
    # The client writes pieces of 10 MB, and knows nothing of half a piece.
    whole, cut = save({"a": np.arange(6 << 20, dtype=np.float32)}), 15_000_000
    hub.files["model.safetensors"] = whole
    hub.cuts["model.safetensors"] = cut
    said = find(HF_HUB_DOWNLOAD_TIMEOUT="5")
    if not said.startswith("/"):  # the client has given up: the next start goes on
        assert "cannot be fetched from the hub" in said
        said = find()
    assert (Path(said) / "model.safetensors").read_bytes() == whole
    starts = [start for name, start in hub.asked if name == "model.safetensors"]
    assert starts[0] == 0
    assert 0 < starts[-1] <= cut


def test_what_was_fetched_is_found_without_a_network(hub: SmallHub, find: Find) -> None:
    folder = find()
    assert find(HF_ENDPOINT="http://127.0.0.1:9") == folder
    assert find(HF_HUB_OFFLINE="1") == folder


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hf:org/model@v9", "org/model has no revision 'v9'"),
        ("hf:org/other@main", "there is no model org/other, or it is private"),
    ],
)
def test_what_the_hub_does_not_have_is_said(find: Find, source: str, said: str) -> None:
    told = find(source)
    assert told.startswith(f"model 'minilm': source {source!r}: cannot be fetched from the hub: ")
    assert said in told


def test_a_private_repository_needs_a_token(hub: SmallHub, find: Find) -> None:
    hub.token = "hf_secret"
    assert "or it is private; for a private one set HF_TOKEN" in find()
    assert "or it is private; for a private one set HF_TOKEN" in find(HF_TOKEN="hf_wrong")
    assert names(find(HF_TOKEN="hf_secret")) == set(READ)


def test_a_gated_repository_needs_access(hub: SmallHub, find: Find) -> None:
    hub.is_gated = True
    assert "org/model is gated: ask for access" in find()


def test_without_a_network_it_says_so(find: Find) -> None:
    told = find(HF_ENDPOINT="http://127.0.0.1:9")
    assert "the hub cannot be reached (" in told
    assert "is not in the cache; connect, or give a folder" in told


def test_weights_of_another_form_are_named(hub: SmallHub, find: Find) -> None:
    del hub.files["model.safetensors"]
    assert "it holds 2_Dense/model.safetensors, consolidated.safetensors," in find()
    assert "pytorch_model.bin" in find()


def test_sizes_are_told_from_headers_alone(hub: SmallHub, ask: Ask) -> None:
    child = ask("-m", "serving", "sizes", "hf:org/model@main", COLUMNS="200")
    assert child.returncode == 0
    assert "bert, encoder, 262,144 numbers" in child.stdout
    row = next(line.split() for line in child.stdout.splitlines() if "fp32" in line)
    assert row[:3] == ["fp32", "torch", "1.0"]
    assert hub.sent.keys() <= {"config.json", "model.safetensors"}
    assert hub.sent["model.safetensors"] < 200_000 < len(WEIGHTS)


def test_sizes_of_shards_are_summed(hub: SmallHub, ask: Ask) -> None:
    del hub.files["model.safetensors"]
    parts = {f"part-{n}.safetensors": save({f"{n}": np.zeros(1 << 18)}) for n in range(2)}
    index = {"weight_map": {str(n): name for n, name in enumerate(parts)}}
    hub.files |= {**parts, "model.safetensors.index.json": json.dumps(index).encode()}
    assert "524,288 numbers" in ask("-m", "serving", "sizes", "hf:org/model@main").stdout


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", b"\xff" * 100, "cannot be read on the hub"),
        ("config.json", b"[", "cannot be read on the hub"),
        ("config.json", None, "cannot be read on the hub"),
        ("model.safetensors", None, "not a safetensors repo"),
    ],
)
def test_headers_that_cannot_be_read_are_told(
    hub: SmallHub, ask: Ask, name: str, content: bytes | None, said: str
) -> None:
    hub.files.pop(name)
    if content is not None:
        hub.files[name] = content
    child = ask("-m", "serving", "sizes", "hf:org/model@main")
    assert child.returncode == 1
    assert "source 'hf:org/model@main'" in child.stderr
    assert said in child.stderr


def test_settings_beside_a_configuration_come_with_the_headers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def download(where: str, repo: str, revision: str, patterns: list[str]) -> Path:
        asked.extend(patterns)
        return tmp_path

    monkeypatch.setattr("serving.hub.download", download)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.get_safetensors_metadata",
        lambda api, repo, revision: SimpleNamespace(files_metadata={}),
    )
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "quantize_config.json").write_text('{"bits": 4}')
    config, _ = read_headers_on_hub("source", "org/model", "main")
    assert config["quantization_config"] == {"bits": 4, "quant_method": "gptq"}
    assert asked == ["config.json", *QUANTIZATION_FILES]
