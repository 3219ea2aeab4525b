"""The table of tasks. Adding one is a file here and an entry in ``TASKS``."""

from __future__ import annotations

from serving.seams import Task
from serving.table import Table

GROUP = "quantserve.tasks"
"""Entry points of this group add tasks from other packages."""

TASKS = Table(
    "task",
    Task,
    {
        "embeddings": "serving.tasks.embeddings:TASK",
        "classification": "serving.tasks.classification:TASK",
        "rerank": "serving.tasks.rerank:TASK",
        "generation": "serving.tasks.generation:TASK",
    },
    GROUP,
)
