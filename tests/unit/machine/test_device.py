"""Which device a variant gets, on machines with and without CUDA; torch is not imported."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.machine import device as module
from serving.machine.device import choose_device, instructions_of, why_no_cuda
from serving.machine.isa import instruction_set
from serving.runtimes import RUNTIMES
from serving.seams import Runtime


@pytest.fixture
def both(paper) -> Runtime:
    """A runtime that has both devices."""
    return replace(RUNTIMES["paper"], devices=("cpu", "cuda"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine with a CUDA device and a torch that can use it."""
    monkeypatch.setattr(module, "cuda_capability", lambda: (9, 0))
    monkeypatch.setattr(module, "_torch_has_cuda", lambda: True)
    why_no_cuda.cache_clear()
    yield monkeypatch
    why_no_cuda.cache_clear()


@pytest.mark.parametrize(("wanted", "device"), [("auto", "cuda"), ("cuda", "cuda"), ("cpu", "cpu")])
def test_a_cuda_device_is_taken_where_it_is_wanted(
    machine: pytest.MonkeyPatch, both: Runtime, wanted: str, device: str
) -> None:
    assert choose_device(wanted, both) == device
    assert instructions_of("cuda") == "sm_90"


@pytest.mark.usefixtures("machine", "paper")
def test_a_runtime_without_cuda_takes_none() -> None:
    assert choose_device("auto", RUNTIMES["paper"]) == "cpu"
    with pytest.raises(ConfigError, match="device is cuda, but the runtime has cpu only"):
        choose_device("cuda", RUNTIMES["paper"])


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("cuda_capability", None, "this machine has no CUDA device"),
        ("_torch_has_cuda", False, "the installed torch is a build without CUDA"),
    ],
)
def test_a_machine_that_cannot_use_cuda_says_why(
    machine: pytest.MonkeyPatch, both: Runtime, name: str, value: object, reason: str
) -> None:
    machine.setattr(module, name, lambda: value)
    assert choose_device("auto", both) == "cpu"
    with pytest.raises(ConfigError, match=f"device is cuda, but {reason}"):
        choose_device("cuda", both)


@pytest.mark.parametrize(
    ("line", "has_cuda"),
    [
        ("cuda: Optional[str] = '13.0'", True),
        ('cuda = "12.8"', True),
        ("cuda: Optional[str] = None", False),
        ("hip: Optional[str] = '7.0'", False),
    ],
)
def test_torch_s_build_is_read_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, has_cuda: bool
) -> None:
    (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{line}\n")

    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(module, "find_spec", lambda name: Spec)
    assert module._torch_has_cuda() == has_cuda


def test_this_machine_s_answer_is_torch_s() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == str(why_no_cuda() is None)


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; from serving.machine.device import why_no_cuda; why_no_cuda(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_instructions_of_a_cpu_are_its_instruction_set() -> None:
    assert instructions_of("cpu") == instruction_set()
