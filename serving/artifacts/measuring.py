"""Measures how far what was just made agrees with its reference, on inputs that were held out."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.artifacts.calibration import BATCH_INPUTS, TEXT_TOKENS
from serving.artifacts.manifest import TASK_FOLDER, WEIGHTS_FOLDER
from serving.artifacts.request import AgreementFloor, ArtifactRequest
from serving.cores import UnsharedCores
from serving.errors import ConfigError
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import (
    GREEDY,
    EncoderEngine,
    EncoderTask,
    GenerationTask,
    GeneratorEngine,
    Input,
    OpenGeneratorRequest,
    OpenRequest,
    PreparedAgreement,
    ProbeRows,
    TokenRequest,
)
from serving.tasks import TASKS

SCORED = replace(GREEDY, logprobs=1)


def measure_agreement(
    request: ArtifactRequest,
    folder: Path,
    reference_folder: Path,
    inputs: Sequence[Input],
    threads: int,
) -> PreparedAgreement:
    """Open what was made and its reference, one after the other, and compare their answers.

    Of an encoder it is the mean of the measure that its task names (``EncoderJudging.held_to``),
    over the inputs; where that looks at probes, the inputs stand in for them. Of a generator it is
    the share of places in the texts at which both hold the same token for the most probable, given
    the text before; each text is cut to ``TEXT_TOKENS``.

    Args:
        request: What was made, with its floor.
        folder: Where, as an artifact's folder is.
        reference_folder: Likewise the reference.
        inputs: Those that were held out.
        threads: Intra-op threads.

    Raises:
        ConfigError: One of the two cannot be opened, or cannot be measured.
    """
    floor = request.floor
    assert floor is not None
    reference = floor.reference
    if TASKS[request.task].kind == "encoder":
        rows = _rows(request, folder, inputs, threads)
        expected = _rows(reference, reference_folder, inputs, threads)
        measure, value = _compare_rows(request, rows, expected)
    else:
        task: GenerationTask = TASKS[request.task].open(folder / TASK_FOLDER, TEXT_TOKENS)
        texts = [_tokens_of(task, str(text)) for text in inputs]
        tops = _first_choices(request, folder, texts, threads)
        expected_tops = _first_choices(reference, reference_folder, texts, threads)
        if not tops:
            raise ConfigError(
                f"no held-out text of {floor.origin.name} has a second token to compare"
            )
        measure, value = "agreement", float(np.mean(np.equal(tops, expected_tops)))
    return PreparedAgreement(
        measure=measure,
        value=value,
        inputs=len(inputs),
        data=floor.origin.name,
        reference=f"{reference.recipe} on {reference.runtime}",
    )


def require_floor(agreement: PreparedAgreement, floor: AgreementFloor, consequence: str) -> None:
    """Raise ``ConfigError`` if what was measured is below the floor.

    Args:
        agreement: What was measured.
        floor: What is asked for.
        consequence: What becomes of the artifact, in words.
    """
    if agreement.value < floor.least:
        raise ConfigError(
            f"{agreement}, below its min_agreement {floor.least:g}: {consequence}. Take another "
            "recipe, runtime or other options, calibrate on more inputs or on likelier ones, or "
            "lower min_agreement"
        )


def _rows(
    request: ArtifactRequest, folder: Path, inputs: Sequence[Input], threads: int
) -> NDArray[np.float32]:
    """Answers to the inputs, in their order, (inputs, width)."""
    task: EncoderTask = TASKS[request.task].open(folder / TASK_FOLDER, None)
    engine: EncoderEngine = RUNTIMES[request.runtime].open_encoder(
        OpenRequest(
            folder=folder / WEIGHTS_FOLDER,
            recipe=request.recipe,
            options=RECIPES[request.recipe].options(**request.options),
            head=task.head,
            device=request.device,
            threads=threads,
        )
    )
    items = task.prepare(inputs, True)
    order = sorted(range(len(items)), key=lambda index: items[index].cost)
    batches = [
        engine.forward(
            task.collate([items[index] for index in order[start : start + BATCH_INPUTS]])
        )
        for start in range(0, len(order), BATCH_INPUTS)
    ]
    rows: NDArray[np.float32] = task.decode(np.concatenate(batches)[np.argsort(order)])
    # Nothing of one engine shall lie beside the next.
    del engine
    gc.collect()
    return rows


def _compare_rows(
    request: ArtifactRequest, rows: NDArray[np.float32], expected: NDArray[np.float32]
) -> tuple[str, float]:
    """Name and mean of what the task is held to."""
    # scipy comes with it, which nobody needs who measures nothing.
    from serving.quality.agreement import compare_rows

    judging = TASKS[request.task].judging
    assert judging is not None  # an encoder's task has it
    how = judging()
    try:
        comparisons = [
            compare_rows(
                how,
                row,
                expected[index],
                ProbeRows(rows, expected, index) if how.needs_probes else None,
            )
            for index, row in enumerate(rows)
        ]
    except ValueError as error:
        raise ConfigError(f"its agreement cannot be measured: {error}") from None
    if how.held_to == "agreement":
        values = [comparison.agreement for comparison in comparisons]
    else:
        values = [comparison.measures[how.held_to] for comparison in comparisons]
    return how.held_to, float(np.mean(values))


def _tokens_of(task: GenerationTask, text: str) -> tuple[int, ...]:
    """Token ids of a text of any length, as many as are measured."""
    prompt, continuation = task.encode_continuation("", text)
    return (prompt + continuation)[: task.max_tokens]


def _first_choices(
    request: ArtifactRequest, folder: Path, texts: Sequence[tuple[int, ...]], threads: int
) -> list[int]:
    """The most probable token at each place of each text but its first, given all before."""
    open_generator = RUNTIMES[request.runtime].open_generator
    assert open_generator is not None  # or the plan would have refused the variant
    task: GenerationTask = TASKS[request.task].open(folder / TASK_FOLDER, TEXT_TOKENS)
    engine = open_generator(
        OpenGeneratorRequest(
            folder=folder / WEIGHTS_FOLDER,
            recipe=request.recipe,
            options=RECIPES[request.recipe].options(**request.options),
            device=request.device,
            threads=threads,
            cores=UnsharedCores(threads),
            max_running=1,
            max_waiting=1,
            max_tokens=task.max_tokens,
            kv_cache=request.kv_cache,
        )
    )
    try:
        if not engine.can_score:
            raise ConfigError(
                f"its agreement cannot be measured: {request.runtime} does not say how probable "
                "given tokens are. Remove min_agreement"
            )
        return asyncio.run(_score_all(engine, texts))
    finally:
        engine.close()
        del engine
        gc.collect()


async def _score_all(engine: GeneratorEngine, texts: Sequence[tuple[int, ...]]) -> list[int]:
    choices: list[int] = []
    for text in texts:
        if len(text) < 2:  # a single token follows nothing
            continue
        request = TokenRequest(text, 0, frozenset(), SCORED, logprobs_from=1)
        async with aclosing(engine.generate(request)) as answer:
            async for generated in answer:
                choices += [token.top[0][0] for token in generated.prompt]
                break
    return choices
