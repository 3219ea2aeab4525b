"""The measurement for GPUs, on a CPU in the place of one and without what such a machine lacks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.on_gpu.__main__ import Clock, possible
from serving.recipes import RECIPES
from serving.runtimes.torch.conversions import CONVERSIONS

ROOT = Path(__file__).parents[3]
PACKAGES = Path(torch.__file__).parents[1]

ABSENT = {
    "ai_edge_litert",
    "aiohttp",
    "fastapi",
    "gguf",
    "llama_cpp",
    "llguidance",
    "nncf",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "orjson",
    "prometheus_client",
    "ray",
    "rich",
    "scipy",
    "starlette",
    "torchao",
    "tvm",
    "tvm_ffi",
    "typer",
    "uvicorn",
}


def other_packages(folder: Path) -> Path:
    """A folder with the installed packages but ``ABSENT``."""
    for entry in PACKAGES.iterdir():
        name = re.split(r"[-.]", entry.name)[0].lower()
        if name not in ABSENT and entry.suffix != ".pth" and "editable" not in name:
            (folder / entry.name).symlink_to(entry)
    return folder


def test_every_recipe_is_measured_where_ray_and_other_runtimes_are_missing(tmp_path: Path) -> None:
    path = os.pathsep.join(map(str, (other_packages(tmp_path), ROOT)))
    child = subprocess.run(
        # Without site: the packages are those of PYTHONPATH alone.
        [sys.executable, "-S", "-m", "benchmarks.on_gpu", "--device", "cpu"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-3_000:]
    assert "a CPU in the place of a GPU" in child.stdout
    assert " ray " not in child.stdout.splitlines()[0], "it is installed here"
    encoder, generator = child.stdout.split("generator: random weights")
    for recipe in CONVERSIONS:
        if CONVERSIONS[recipe].move_to_gpu is None:
            continue
        expected = RECIPES[recipe].encoder
        assert expected is not None
        [cosine] = re.findall(rf"\| `{recipe}` \| [\d.]+ \| [\d.]+ \| ([\d.]+) \(", encoder)
        assert float(cosine) >= expected.cosine
        [row] = re.findall(rf"\| `{recipe}` \| (.*) \|", generator)
        load, size, same_top, nats, *speeds = map(float, row.split(" | "))
        assert load > 0
        assert size > 0
        assert 0 <= same_top <= 1
        assert nats < 1
        assert len(speeds) == 2
        assert min(speeds) > 0
    assert "| 1.0000 | 0.0000 |" in generator  # fp32 beside itself
    assert "transformers generate" in generator
    assert "vLLM is for GPUs" in generator


def test_what_there_is_no_time_for_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(possible("encoder", Clock(minutes=0))) == []
    assert list(possible("generator", Clock(minutes=1)))[:3] == ["fp32", "f16", "bf16"]
    said = capsys.readouterr().out
    assert "left out, for lack of time: fp32 of the encoder" in said
    assert "left out, for lack of time: int4 of the encoder" in said
    assert "of the generator" not in said
