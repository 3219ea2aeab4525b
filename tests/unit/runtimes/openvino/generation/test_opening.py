"""How a generator's artifact is opened: lean, mapped, with the threads and the cache asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.runtimes.matrix import why_not
from serving.runtimes.openvino.execution import why_not_here
from serving.runtimes.openvino.generation.opening import open_decoder
from serving.runtimes.openvino.opening import GRAPH, WEIGHTS
from serving.seams import Combination
from tests.unit.runtimes.openvino.generation.conftest import Artifact, Open
from tests.unit.runtimes.tiny_generators import open_request

ROOT = Path(__file__).parents[5]

OPEN_LEAN = """
import asyncio, sys
from pathlib import Path
from serving.cores import UnsharedCores
from serving.runtimes import RUNTIMES
from serving.seams import *
runtime = RUNTIMES["openvino"]
assert runtime.why_not(Combination("fp32", "generator", "cpu", "safetensors")) is None
assert "openvino" not in sys.modules
request = OpenGeneratorRequest(
    Path(sys.argv[1]), "fp32", NoOptions(), "cpu", 1, UnsharedCores(1), 2, 2, 64
)

async def first_token():
    engine = runtime.open_generator(request)
    async for _ in engine.generate(TokenRequest((1, 2), 2, frozenset(), GREEDY)):
        pass
    engine.close()

asyncio.run(first_token())
heavy = {"torch", "transformers", "nncf", "scipy", "pandas", "ray", "openvino_telemetry"}
print(*(name for name in heavy if sys.modules.get(name)))
"""


def test_only_what_runs_is_imported(artifact: Artifact) -> None:
    command = [sys.executable, "-c", OPEN_LEAN, str(artifact("fp32", "llama"))]
    result = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.strip() == ""


def test_the_weights_are_mapped(artifact: Artifact, opened: Open) -> None:
    folder, decoder = artifact("fp32", "llama"), opened()
    assert str(folder / WEIGHTS) in Path("/proc/self/maps").read_text()
    assert decoder.footprint().weights_bytes == (folder / WEIGHTS).stat().st_size


@pytest.mark.skipif(why_not_here("bf16") is not None, reason="this CPU has no bfloat16")
def test_bfloat16_on_one_thread_gets_two(artifact: Artifact) -> None:
    """OpenVINO divides by zero there, which ends the process."""
    decoder = open_decoder(open_request("bf16", artifact("bf16", "llama")))
    assert decoder.num_slots == 4


@pytest.mark.parametrize("file", [GRAPH, WEIGHTS])
def test_a_damaged_file_is_refused(artifact: Artifact, tmp_path: Path, file: str) -> None:
    for name in (GRAPH, WEIGHTS):
        content = (artifact("fp32", "llama") / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2] if name == file else content)
    with pytest.raises(ConfigError, match="cannot open the artifact; remove it and prepare it"):
        open_decoder(open_request("fp32", tmp_path))


@pytest.mark.parametrize(
    ("runtime", "kv_cache", "reason"),
    [
        ("openvino", "float", None),
        ("openvino", "int8", None),
        ("torch", "float", None),
        ("torch", "int8", "kv_cache on torch is float"),
    ],
)
def test_caches_are_of_a_form_that_the_runtime_has(
    runtime: str, kv_cache: str, reason: str | None
) -> None:
    asked = Combination("fp32", "generator", "cpu", "safetensors", kv_cache=kv_cache)
    assert why_not(asked, runtime) == reason
