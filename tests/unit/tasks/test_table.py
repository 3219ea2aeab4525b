"""The table of tasks, and what importing and opening an entry brings along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.quality.probes import MIN_PROBES
from serving.tasks import TASKS
from tests.unit.tasks.answering import prepare_and_open
from tests.unit.tasks.tiny_checkpoints import save_checkpoint

LABELS = {"embeddings": None, "classification": 3, "rerank": 1}
HEAVY = {"torch", "transformers", "scipy", "pandas", "ray", "fastapi", "sentence_transformers"}

OPEN_EACH = """
import sys
from pathlib import Path
from serving.tasks import TASKS
root, *names = sys.argv[1:]
for name in names:
    task = TASKS[name].open(Path(root, name), None)
    task.collate(task.prepare([("a", "b") if name == "rerank" else "a"], False))
print(*sys.modules)
"""


@pytest.mark.parametrize("name", [*TASKS])
def test_every_entry_is_whole(name: str) -> None:
    task = TASKS[name]
    is_encoder = task.kind == "encoder"
    assert [task.judging is not None, task.show is not None, task.tensors is not None] == (
        [is_encoder] * 3
    )
    assert 0 < task.floor < 1 - task.tolerance < 1
    assert len(task.read_probes(None)) >= MIN_PROBES


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    known = "embeddings, classification, rerank, generation"
    with pytest.raises(ConfigError, match=f"unknown task 'translation'; known: {known}"):
        TASKS["translation"]


@pytest.mark.parametrize("name", LABELS)
def test_an_encoder_s_task_has_what_its_answers_need(name: str, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", "bert", labels=LABELS[name])
    task = prepare_and_open(name, checkpoint, tmp_path / "task", max_tokens=9)
    assert task.max_tokens == 9
    assert task.width == (LABELS[name] or 32)


def test_opening_tasks_imports_nothing_heavy(tmp_path: Path) -> None:
    for name, labels in LABELS.items():
        checkpoint = save_checkpoint(tmp_path / f"{name} checkpoint", "bert", labels=labels)
        prepare_and_open(name, checkpoint, tmp_path / name)
    modules = subprocess.run(
        [sys.executable, "-c", OPEN_EACH, str(tmp_path), *LABELS],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert "tokenizers" in modules
    assert not HEAVY.intersection(modules)
