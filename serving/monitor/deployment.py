"""The Ray Serve deployment of the quality process."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from ray import serve

from serving.config import Config, ModelConfig
from serving.errors import InvalidField
from serving.gateway.cluster import Cluster
from serving.gateway.remote_variants import RemoteVariants
from serving.metrics import QualityDrops, QualityMetrics, exposition
from serving.monitor.assessment import Assessment
from serving.monitor.background import Background
from serving.monitor.evaluation import evaluate
from serving.monitor.judges import judge_of
from serving.monitor.probing import Probing
from serving.monitor.shadowing import DROP_REASONS, Shadowing
from serving.seams import EvaluationProgress, Input, ModelQuality, Sample
from serving.tasks import TASKS


class Monitor:
    """Compares every variant with its reference, and says what is known of their quality.

    No request of a client passes through it: without it, all that is missing is the comparison.

    Args:
        config: What is served.
        folder: Where relative paths in it begin.
    """

    # Ray Serve awaits it: the tasks need the event loop that they run in.
    async def __init__(self, config: Config, folder: Path) -> None:  # type: ignore[misc]
        self._folder = folder
        replica = serve.get_replica_context().replica_id.unique_id
        cluster = Cluster(
            [(model.name, variant.name) for model in config.models for variant in model.variants]
        )
        background = Background(RemoteVariants(cluster))
        self._metrics = QualityMetrics(replica)
        self._drops = QualityDrops([model.name for model in config.models], replica, DROP_REASONS)
        self._models = {model.name: model for model in config.models}
        self._assessments = {
            model.name: self._assessment(background, model) for model in config.models
        }
        self._shadowing = Shadowing(self._assessments, self._drops.count)
        probing = [Probing(cluster, assessment) for assessment in self._assessments.values()]
        loop = asyncio.get_running_loop()
        runs = [self._shadowing.run(), *(one.run() for one in probing)]
        self._tasks = [loop.create_task(run) for run in runs]
        self._evaluations: dict[str, asyncio.Task[None]] = {}

    async def offer(self, sample: Sample) -> None:
        """Take a sampled live request."""
        self._shadowing.offer(sample)

    async def report(self) -> tuple[ModelQuality, ...]:
        """Return everything that is known."""
        return tuple(assessment.report() for assessment in self._assessments.values())

    async def inputs(self, model: str) -> tuple[Input, ...] | InvalidField:
        """Return the latest live inputs of a model; an expected error is a value."""
        if not self._models[model].quality.keep_samples:
            return InvalidField(
                f"no input of model {model!r} is kept; its quality.keep_samples says how many may "
                "be",
                param="model",
            )
        return self._assessments[model].live_inputs

    async def evaluate(self, model: str) -> EvaluationProgress | InvalidField:
        """Start an evaluation, unless it runs; an expected error is a value, see ``Replica``."""
        dataset = self._models[model].quality.dataset
        if dataset is None:
            return InvalidField(
                f"model {model!r} has no labelled data; name a file in its quality.dataset",
                param="model",
            )
        running = self._evaluations.get(model)
        assessment = self._assessments[model]
        if running is None or running.done():
            assessment.evaluation = EvaluationProgress("running", 0, 0, "")
            self._evaluations[model] = asyncio.get_running_loop().create_task(
                evaluate(assessment, self._path(dataset))
            )
        assert assessment.evaluation is not None
        return assessment.evaluation

    def check_health(self) -> None:
        """Raise if Ray Serve should replace this process."""
        if any(task.done() for task in self._tasks):
            raise RuntimeError("a task of the quality process has ended")

    async def metrics(self) -> str:
        """Prometheus text of this process."""
        self._metrics.set_report(await self.report())
        return exposition([self._metrics.registry, self._drops.registry])

    async def in_flight(self) -> int:
        """No request of a client is ever here."""
        return 0

    def _assessment(self, background: Background, model: ModelConfig) -> Assessment:
        task = TASKS[model.task]
        file = model.quality.probes
        probes = task.read_probes(None if file is None else self._path(file))
        judge = judge_of(background, model, task, probes)
        return Assessment(model, task, judge, probes, partial(self._metrics.observe, model.name))

    def _path(self, configured: str) -> Path:
        return self._folder / Path(configured).expanduser()
