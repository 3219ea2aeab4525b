"""The library beside others in one process, as a variant and its draft are."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("openvino")

COMPILE_AFTER_LOADING = """
from serving.runtimes.llamacpp.library import load_library
load_library()
import serving.runtimes.openvino  # before OpenVINO itself, which would call home
import numpy as np
import openvino as ov
from openvino import opset13 as ops
given = ops.parameter([2, 3], np.float32)
compiled = ov.Core().compile_model(ov.Model([ops.relu(given)], [given]), "CPU")
print(compiled(np.full((2, 3), 2, np.float32))[0].sum())
"""


def test_another_runtime_may_be_loaded_after_it() -> None:
    """In a process of its own: in this one the other runtime may be loaded already."""
    command = [sys.executable, "-c", COMPILE_AFTER_LOADING]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) == 12
