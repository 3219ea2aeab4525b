"""``quantserve sizes`` prints what a checkpoint takes; what sizes it names: test_sizing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.checkpoint import look_at
from serving.cli import sizes as module
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import SizeRequest
from tests.unit.cli.conftest import Run
from tests.unit.runtimes.tiny_generators import save_generator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_generator(tmp_path)
    return tmp_path


def row(text: str, recipe: str, runtime: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.split()[:2] == [recipe, runtime])


def test_streams_and_context_make_the_cache(run: Run, folder: Path) -> None:
    few = run("sizes", folder, "--streams", 1, "--context", 1024).stdout
    many = run("sizes", folder, "--streams", 4, "--context", 1024).stdout
    assert "llama, generator" in few
    assert "4 streams of 1024 tokens" in many
    # 2 × 3 layers × 2 heads × 32 numbers of 4 bytes.
    assert row(few, "fp32", "torch")[3] == "1.5"
    assert row(many, "fp32", "torch")[3] == "6.0"


def test_what_a_device_has_decides_what_fits(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: 440 * 2**20)
    monkeypatch.setattr(module, "cuda_memory_bytes", lambda: 80 * 2**30)
    on_cpu, on_cuda = run("sizes", folder).stdout.split("on cuda")
    assert "(440.0 MiB left)" in on_cpu
    assert row(on_cpu, "fp32", "torch")[-1] == "no"
    assert " ".join(row(on_cpu, "q4_0", "llama.cpp")[6:]) == "yes; cannot be prepared here"
    assert "(81,920.0 MiB left)" in on_cuda
    assert row(on_cuda, "fp32", "torch")[6:8] == ["yes;", "cannot"]


def test_a_replica_is_said_without_what_it_shares(run: Run, folder: Path) -> None:
    on_cpu, on_cuda = run("sizes", folder).stdout.split("on cuda")
    asked = SizeRequest(
        "fp32", RECIPES["fp32"].options(), "generator", "cpu", look_at(str(folder)).shapes
    )
    estimate = RUNTIMES["torch"].estimate(asked)
    alone = estimate.weights_bytes + estimate.process_bytes + estimate.extra_bytes
    [_, _, _, cache, replica, *_] = row(on_cpu, "fp32", "torch")
    shared = float(replica) - float(cache) - (alone - estimate.preloaded_bytes) / 2**20
    assert shared == pytest.approx(0, abs=0.2)
    assert (
        f"replicas on torch share {estimate.preloaded_bytes / 2**20:.1f} MiB more, once" in on_cpu
    )
    assert "share" not in on_cuda


def test_a_cache_of_unknown_size_is_said_to_be_so(run: Run, folder: Path) -> None:
    said = json.loads((folder / "config.json").read_text())
    for name in ("hidden_size", "head_dim"):
        said.pop(name, None)
    (folder / "config.json").write_text(json.dumps(said))
    text = run("sizes", folder).stdout
    assert row(text, "fp32", "torch")[3] == "unknown"
    assert row(text, "fp32", "torch")[-1] == "unknown"
    assert "KV cache unknown: config.json does not say how many keys and values" in text


def test_a_source_that_is_missing_is_named(run: Run, tmp_path: Path) -> None:
    result = run("sizes", tmp_path / "none")
    assert result.exit_code == 1
    assert f"source '{tmp_path / 'none'}': no folder" in result.stderr
