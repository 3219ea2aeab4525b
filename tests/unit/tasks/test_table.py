"""The table of tasks."""

from importlib import import_module

import pytest

from serving.errors import ConfigError
from serving.tasks import GENERATION_TASKS, TASKS, check_task, load_generation_task, load_task
from tests.unit.tasks.conftest import Folder


@pytest.mark.parametrize("name", TASKS.keys() - GENERATION_TASKS)
def test_every_encoder_entry_loads_a_task(name: str, folder: Folder) -> None:
    check_task(name)
    task = load_task(name, folder.checkpoint, max_tokens=8)
    assert task.max_tokens == 8
    assert task.width == (len(task.labels) or 4)
    assert import_module(TASKS[name].partition(":")[0]).__name__ == type(task).__module__


@pytest.mark.parametrize("name", GENERATION_TASKS)
def test_every_generation_entry_loads_a_task(name: str, folder: Folder) -> None:
    check_task(name)
    task = load_generation_task(name, folder.checkpoint, max_tokens=8)
    assert task.max_tokens == 8
    assert task.encode_prompt("a b")
    assert import_module(TASKS[name].partition(":")[0]).__name__ == type(task).__module__


def test_an_unknown_task_is_refused_with_the_known_ones(folder: Folder) -> None:
    expected = "unknown task 'translation'; known: embeddings, classification, generation"
    with pytest.raises(ConfigError, match=expected):
        check_task("translation")
    for load in (load_task, load_generation_task):
        with pytest.raises(ConfigError, match=expected):
            load("translation", folder.checkpoint)
