"""How an artifact is opened: lean, mapped, with the threads asked for, or refused in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.runtimes.openvino.opening import (
    GRAPH,
    WEIGHTS,
    check_it_runs_in_bf16,
    compile_artifact,
)
from serving.seams import NoOptions, OpenRequest, Pooled
from tests.unit.runtimes.openvino.conftest import Artifact
from tests.unit.runtimes.tiny_models import open_prepared

ROOT = Path(__file__).parents[4]


def request_for(folder: Path, threads: int = 1) -> OpenRequest:
    return OpenRequest(folder, "fp32", NoOptions(), Pooled(), "cpu", threads)


OPEN_LEAN = """
import sys
from pathlib import Path
import numpy as np
from serving.runtimes import RUNTIMES
from serving.seams import NoOptions, OpenRequest, Pooled, SizeRequest, WeightShape
runtime = RUNTIMES["openvino"]
shape = WeightShape("a", (64, 64), False)
assert runtime.estimate(SizeRequest("fp32", NoOptions(), "encoder", "cpu", [shape])).weights_bytes
assert "openvino" not in sys.modules
request = OpenRequest(Path(sys.argv[1]), "fp32", NoOptions(), Pooled(), "cpu", 1)
engine = runtime.open_encoder(request)
engine.forward({"input_ids": np.ones((1, 4), int), "attention_mask": np.ones((1, 4), int)})
heavy = {"torch", "transformers", "nncf", "scipy", "pandas", "ray", "openvino_telemetry"}
print(*(name for name in heavy if sys.modules.get(name)))
"""


def test_only_what_runs_is_imported_and_nothing_calls_home(
    artifact: Artifact, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", OPEN_LEAN, str(artifact("fp32", Pooled()))]
    home = os.environ | {"HOME": str(tmp_path)}
    result = subprocess.run(command, check=True, cwd=ROOT, env=home, capture_output=True, text=True)
    assert result.stdout.strip() == ""
    # It would keep an id of the user there.
    assert not (tmp_path / "intel").exists()


def test_the_weights_are_mapped(artifact: Artifact) -> None:
    folder = artifact("fp32", Pooled())
    engine = open_prepared("openvino", "fp32", Pooled(), folder)
    assert str(folder / WEIGHTS) in Path("/proc/self/maps").read_text()
    assert engine.footprint().weights_bytes == (folder / WEIGHTS).stat().st_size


@pytest.mark.parametrize("threads", [1, 2])
def test_the_threads_are_those_asked_for(artifact: Artifact, threads: int) -> None:
    model = compile_artifact(request_for(artifact("fp32", Pooled()), threads))
    assert model.get_property("INFERENCE_NUM_THREADS") == threads


def test_opening_leaves_the_environment_as_it_was(artifact: Artifact) -> None:
    before = dict(os.environ)
    compile_artifact(request_for(artifact("fp32", Pooled())))
    assert dict(os.environ) == before


@pytest.mark.parametrize("file", [GRAPH, WEIGHTS])
@pytest.mark.parametrize("share_left", [0, 0.5])
def test_a_damaged_file_is_refused(
    artifact: Artifact, tmp_path: Path, file: str, share_left: float
) -> None:
    for name in (GRAPH, WEIGHTS):
        content = (artifact("int8-weights", Pooled()) / name).read_bytes()
        left = int(len(content) * share_left) if name == file else len(content)
        (tmp_path / name).write_bytes(content[:left])
    with pytest.raises(ConfigError, match="cannot open the artifact; remove it and prepare it"):
        open_prepared("openvino", "int8-weights", Pooled(), tmp_path)


@pytest.mark.parametrize("file", [GRAPH, WEIGHTS])
def test_a_missing_file_is_refused(artifact: Artifact, tmp_path: Path, file: str) -> None:
    for name in {GRAPH, WEIGHTS} - {file}:
        (tmp_path / name).write_bytes((artifact("fp32", Pooled()) / name).read_bytes())
    with pytest.raises(ConfigError, match="cannot open the artifact"):
        open_prepared("openvino", "fp32", Pooled(), tmp_path)


def test_float32_does_not_pass_for_bfloat16(artifact: Artifact) -> None:
    model = compile_artifact(request_for(artifact("fp32", Pooled())))
    with pytest.raises(ConfigError, match="runs it in float32; use recipe 'fp32'"):
        check_it_runs_in_bf16(model)
