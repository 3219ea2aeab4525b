"""The Ray Serve deployment of the quality process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
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
from serving.monitor.evidence import Evidence, file_digest
from serving.monitor.judges import judge_of
from serving.monitor.probing import QUIET_S, Probing
from serving.monitor.shadowing import DROP_REASONS, Shadowing
from serving.seams import (
    CourseStep,
    EvaluationProgress,
    Input,
    ModelQuality,
    Sample,
    VerdictChange,
)
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
        self._evidence = Evidence(self._path(config.evidence.folder), config.models)
        await self._evidence.open()
        replica = serve.get_replica_context().replica_id.unique_id
        cluster = Cluster(
            [(model.name, variant.name) for model in config.models for variant in model.variants]
        )
        background = Background(RemoteVariants(cluster))
        self._metrics = QualityMetrics(replica)
        self._drops = QualityDrops([model.name for model in config.models], replica, DROP_REASONS)
        self._models = {model.name: model for model in config.models}
        self._assessments = {
            model.name: await self._assessment(background, model) for model in config.models
        }
        self._shadowing = Shadowing(self._assessments, self._drops.count)
        loop = asyncio.get_running_loop()
        runs = [self._shadowing.run(), self._evidence.keep_bounded()]
        runs += [probing.run() for probing in _in_order(cluster, self._assessments.values())]
        self._tasks = [loop.create_task(run) for run in runs]
        self._evaluations: dict[str, asyncio.Task[None]] = {}

    async def offer(self, sample: Sample) -> None:
        """Take a sampled live request."""
        self._shadowing.offer(sample)

    async def report(self) -> tuple[ModelQuality, ...]:
        """Return everything that is known."""
        return tuple([await assessment.report() for assessment in self._assessments.values()])

    async def history(self, since: float) -> Mapping[str, tuple[VerdictChange, ...]]:
        """Return the changes of verdicts since a time in seconds since 1970, by model."""
        return await self._evidence.history(since)

    async def course(self, model: str, since: float, step_s: float) -> tuple[CourseStep, ...]:
        """Return how a model's agreements went since a time, by steps of ``step_s`` seconds."""
        return await self._evidence.course(model, since, step_s)

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
        self._metrics.set_evidence_kept(not self._evidence.not_kept)
        return exposition([self._metrics.registry, self._drops.registry])

    async def in_flight(self) -> int:
        """No request of a client is ever here."""
        return 0

    async def _assessment(self, background: Background, model: ModelConfig) -> Assessment:
        task = TASKS[model.task]
        file, dataset = model.quality.probes, model.quality.dataset
        probes = task.read_probes(None if file is None else self._path(file))
        data_set = None
        if dataset is not None:
            data_set = await asyncio.to_thread(file_digest, self._path(dataset))
        assessment = Assessment(
            model,
            task,
            judge_of(background, model, task, probes),
            probes,
            self._evidence,
            data_set,
            partial(self._metrics.observe, model.name),
        )
        await assessment.restore_inputs()
        return assessment

    def _path(self, configured: str) -> Path:
        return self._folder / Path(configured).expanduser()

    def __del__(self) -> None:
        # Ray Serve calls it when it stops the process; a constructor that raised may have set none.
        if (evidence := getattr(self, "_evidence", None)) is not None:
            evidence.close()


def _in_order(cluster: Cluster, assessments: Iterable[Assessment]) -> list[Probing]:
    """The probing of every model: those that generate, which take longer, after the others."""
    first = [Probing(cluster, one) for one in assessments if one.task.kind != "generator"]
    return first + [
        Probing(cluster, one, first, QUIET_S) for one in assessments if one.task.kind == "generator"
    ]
