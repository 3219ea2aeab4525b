"""Opens an encoder's artifact, as a replica does, in this process."""

from __future__ import annotations

from serving.artifacts import Artifact
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import EncoderEngine, EncoderTask, OpenRequest
from serving.tasks import TASKS


def opened(artifact: Artifact) -> tuple[EncoderTask, EncoderEngine]:
    """Task and engine of an artifact, on one thread."""
    key = artifact.manifest.key
    task: EncoderTask = TASKS[key.task].open(artifact.task_folder, None)
    open_encoder = RUNTIMES[key.runtime].open_encoder
    engine: EncoderEngine = open_encoder(
        OpenRequest(
            folder=artifact.weights_folder,
            recipe=key.recipe,
            options=RECIPES[key.recipe].options(**key.options),
            head=task.head,
            device=key.device,
            threads=1,
        )
    )
    return task, engine
