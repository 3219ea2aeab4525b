"""The judge of a model, by the kind of engine that its task runs on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from serving.config import ModelConfig
from serving.monitor.background import Background
from serving.monitor.encoder_judge import EncoderJudge
from serving.monitor.generator_judge import GeneratorJudge
from serving.monitor.judge import Judge
from serving.seams import Input, Task


def judge_of(
    background: Background, model: ModelConfig, task: Task, probes: Sequence[Input]
) -> Judge:
    """Make the judge of a model."""
    if task.kind == "generator":
        prompts = cast(Sequence[str], probes)
        return GeneratorJudge(background, model.name, model.reference, prompts)
    assert task.judging is not None  # no encoder's task is without
    return EncoderJudge(background, model.name, model.reference, task.judging(), probes)
