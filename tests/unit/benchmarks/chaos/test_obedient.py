"""The runtime that misbehaves when it is told to."""

from __future__ import annotations

import threading
import time
from importlib.metadata import distributions
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarks.chaos.running import SITE

WAIT_S = 30
PASS_S = 0.02
ROWS = np.ones((2, 3), np.float32)


class SlowEngine:
    """Takes its time and answers ones."""

    device = "cpu"

    def use_cores(self, cores):
        pass

    def forward(self, inputs):
        time.sleep(PASS_S)
        return ROWS

    def footprint(self):
        raise AssertionError("nobody asks")


@pytest.fixture
def module() -> ModuleType:
    spec = spec_from_file_location("quantserve_obedient", SITE / "quantserve_obedient.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def conduct(tmp_path: Path) -> Path:
    file = tmp_path / "conduct"
    file.write_text("")
    return file


def test_it_is_found_as_a_runtime_where_its_folder_is_on_the_path() -> None:
    [found] = distributions(path=[str(SITE)])
    [point] = found.entry_points
    assert (point.group, point.name) == ("quantserve.runtimes", "obedient-torch")


def test_it_answers_like_its_engine_unless_it_is_told_otherwise(
    module: ModuleType, conduct: Path
) -> None:
    engine = module.Obedient(SlowEngine(), conduct)
    assert (engine.forward({}) == ROWS).all()
    conduct.write_text("nan")
    assert np.isnan(engine.forward({})).all()
    conduct.write_text("")
    assert (engine.forward({}) == ROWS).all()


def test_ten_times_slower_is_slower(module: ModuleType, conduct: Path) -> None:
    engine = module.Obedient(SlowEngine(), conduct)
    conduct.write_text("slow")
    begun = time.perf_counter()
    assert (engine.forward({}) == ROWS).all()
    assert time.perf_counter() - begun >= 10 * PASS_S


def test_it_hangs_until_it_is_told_to_behave(module: ModuleType, conduct: Path) -> None:
    engine = module.Obedient(SlowEngine(), conduct)
    conduct.write_text("hang")
    thread = threading.Thread(target=engine.forward, args=({},), daemon=True)
    thread.start()
    thread.join(5 * PASS_S)
    assert thread.is_alive()
    conduct.write_text("")
    thread.join(WAIT_S)
    assert not thread.is_alive()
