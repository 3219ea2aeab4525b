"""Every variant of a model over the same data, in turns with the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.app.comparison import measuring
from serving.app.comparison.measuring import Answers, Continued, Opening
from serving.app.comparison.quantities import (
    Quantities,
    Row,
    accuracy,
    agreement,
    answering_time,
    continuing_time,
    labels_met,
    of_reference,
    probability,
    sizes,
)
from serving.app.comparison.variant_process import VariantProcess
from serving.app.plan import Plan, PlannedVariant
from serving.artifacts import Artifact
from serving.errors import ConfigError
from serving.quality.dataset import Example, Passage, read_examples, read_passages
from serving.quality.token_scores import Texts
from serving.replica.generator.draft import Draft
from serving.seams import Task
from serving.tasks import TASKS

ROUNDS = 10
"""So often reference and variant take turns. Student's t of nine degrees of freedom is 2.3."""

PROMPT_TOKENS, NEW_TOKENS = 64, 32
"""Of a generator's round: what it reads, and what it writes."""

Data = Sequence[Example] | Sequence[Passage]

Asked = TypeVar("Asked")
Found = TypeVar("Found")


def variants_of(plan: Plan, model: str, names: Sequence[str] = ()) -> list[PlannedVariant]:
    """The variants of a model that are compared, the reference first.

    Args:
        plan: Of the configuration.
        model: Its public name.
        names: Those beside the reference; all of them if none is named.

    Raises:
        ConfigError: The model, or a variant, is unknown.
    """
    variants = [planned for planned in plan.variants if planned.model.name == model]
    if not variants:
        known = dict.fromkeys(planned.model.name for planned in plan.variants)
        raise ConfigError(f"unknown model {model!r}; configured: {', '.join(known)}")
    known = dict.fromkeys(planned.variant.name for planned in variants)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"model {model!r} has no variant {', '.join(map(repr, unknown))}; it has "
            f"{', '.join(known)}"
        )
    reference = variants[0].model.reference
    chosen = [one for one in variants if not names or one.variant.name in (reference, *names)]
    return sorted(chosen, key=lambda planned: planned.variant.name != reference)


def drafts_of(plan: Plan, variants: Sequence[PlannedVariant]) -> list[PlannedVariant]:
    """Those that propose tokens to some of these variants, and are not among them."""
    names = {planned.draft.name for planned in variants if planned.draft is not None}
    names -= {planned.artifact.name for planned in variants}
    return [planned for planned in plan.variants if planned.artifact.name in names]


def openings(variants: Sequence[PlannedVariant], artifacts: dict[str, Artifact]) -> list[Opening]:
    """What is opened of each variant.

    Args:
        variants: In the order of the table.
        artifacts: Of these and what proposes tokens to them, by ``ArtifactRequest.name``.
    """
    return [
        Opening(
            planned.model,
            planned.variant,
            planned.device,
            artifacts[planned.artifact.name],
            None if (asked := planned.draft) is None else Draft(asked, artifacts[asked.name]),
        )
        for planned in variants
    ]


def read_data(path: Path, task: Task) -> Data:
    """Read what variants are compared on: inputs, with labels or without, or a generator's texts.

    Raises:
        ConfigError: The file cannot be read, or a line is wrong.
    """
    if task.kind == "generator":
        return read_passages(path)
    if isinstance(task.read_probes(None)[0], str):
        return read_examples(path, need_labels=False)
    return [Example(pair) for pair in task.read_probes(path)]


def compare(openings: Sequence[Opening], data: Data) -> Iterator[Row]:
    """Measure variants on ``data``, the reference first.

    Each is opened in a process of its own, so that its memory is its own, and takes turns with the
    reference's process, so that what slows the machine for a while slows both. At most two are
    open at a time.

    Args:
        openings: The reference first.
        data: What ``read_data`` returned.

    Raises:
        ConfigError: The model has no such labels, the data is too short or too long, or a variant
            cannot be opened.
    """
    first, *others = openings
    task = TASKS[first.model.task]
    with closing(VariantProcess(first)) as process:
        reference = (
            _GeneratorReference(process, data)
            if task.kind == "generator"
            else _EncoderReference(process, data, task)
        )
        memory = process.call(measuring.occupied)
        disk_bytes = first.disk_bytes
        own = {**reference.own, **sizes(memory, disk_bytes, memory, disk_bytes)}
        yield _row(first, of_reference(own))
        for opening in others:
            with closing(VariantProcess(opening)) as other:
                found = reference.beside(other)
                theirs = other.call(measuring.occupied)
            size = sizes(theirs, opening.disk_bytes, memory, disk_bytes)
            yield _row(opening, {**found, **size})


class _EncoderReference:
    """An encoder's reference, and what it answered.

    Every part of the data has each so many'th input, so that all are alike.
    """

    def __init__(self, process: VariantProcess, data: Data, task: Task) -> None:
        self._process = process
        self._examples = [example for example in data if isinstance(example, Example)]
        inputs = [example.input for example in self._examples]
        self._parts = [inputs[start::ROUNDS] for start in range(min(ROUNDS, len(inputs)))]
        assert task.judging is not None  # an encoder's task has it
        self._judging = task.judging()
        self._labels = process.call(measuring.labels)
        [parts] = self._in_turns([process])
        self._rows = self._whole(parts)
        self.own = self._quantities(self._rows, answering_time(parts, parts))

    def beside(self, process: VariantProcess) -> Quantities:
        """What another variant does with the data, in turns with the reference."""
        theirs, parts = self._in_turns([self._process, process])
        return self._quantities(self._whole(parts), answering_time(parts, theirs))

    def _in_turns(self, processes: Sequence[VariantProcess]) -> list[list[Answers]]:
        # What is allocated, or compiled for a shape, at the first sight of it is not what counts.
        processes[-1].call(measuring.answer, self._parts[0])
        return in_turns(
            processes,
            len(self._parts),
            lambda process, number: process.call(measuring.answer, self._parts[number]),
        )

    def _whole(self, parts: Sequence[Answers]) -> NDArray[np.float32]:
        rows = np.empty((len(self._examples), parts[0].rows.shape[1]), np.float32)
        for start, part in enumerate(parts):
            rows[start::ROUNDS] = part.rows
        return rows

    def _quantities(self, rows: NDArray[np.float32], times: Quantities) -> Quantities:
        judged = agreement(rows, self._rows, self._judging)
        if not self._labels or self._examples[0].label is None:
            return {**judged, **times}
        met = labels_met(rows, self._labels, self._examples)
        base = labels_met(self._rows, self._labels, self._examples)
        return {**accuracy(met, base), **judged, **times}


class _GeneratorReference:
    """A generator's reference, and what it scored."""

    def __init__(self, process: VariantProcess, data: Data) -> None:
        self._process = process
        passages = [(one.prompt, one.continuation) for one in data if isinstance(one, Passage)]
        self._texts = process.call(measuring.tokens_of, passages)
        self._prompts = prompts_of([token for tokens, _ in self._texts for token in tokens])
        self._scores: Texts = self._score(process)
        [rounds] = self._in_turns([process])
        self.own = {**probability(self._scores, self._scores), **continuing_time(rounds, rounds)}

    def beside(self, process: VariantProcess) -> Quantities:
        """What another variant makes of the texts, in turns with the reference."""
        scores = self._score(process)
        theirs, rounds = self._in_turns([self._process, process])
        return {**probability(scores, self._scores), **continuing_time(rounds, theirs)}

    def _score(self, process: VariantProcess) -> Texts:
        scores = process.call(measuring.score, self._texts)
        if not any(scores):
            raise ConfigError("the texts have no token to score; a single token follows nothing")
        return scores

    def _in_turns(self, processes: Sequence[VariantProcess]) -> list[list[Continued]]:
        first, *rest = self._prompts
        for process in processes:
            process.call(measuring.continue_text, first, NEW_TOKENS)
        return in_turns(
            processes,
            ROUNDS,
            lambda process, number: process.call(measuring.continue_text, rest[number], NEW_TOKENS),
        )


def prompts_of(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    """One more prompt than there are rounds, of consecutive tokens.

    None is the one before it, whose keys and values the cache still holds.

    Raises:
        ConfigError: There are not enough tokens for two of them.
    """
    if len(tokens) < 2 * PROMPT_TOKENS:
        raise ConfigError(
            f"the texts have {len(tokens)} tokens; at least {2 * PROMPT_TOKENS} are needed"
        )
    whole = len(tokens) // PROMPT_TOKENS
    pieces = [tuple(tokens[n * PROMPT_TOKENS : (n + 1) * PROMPT_TOKENS]) for n in range(whole)]
    return list(islice(cycle(pieces), ROUNDS + 1))


def in_turns(
    processes: Sequence[Asked], rounds: int, ask: Callable[[Asked, int], Found]
) -> list[list[Found]]:
    """What each process answered in each round; who comes first changes from round to round."""
    found: list[list[Found]] = [[] for _ in processes]
    for number in range(rounds):
        places = range(len(processes))
        for place in reversed(places) if number % 2 else places:
            found[place].append(ask(processes[place], number))
    return found


def _row(opening: Opening, found: Quantities) -> Row:
    variant = opening.variant
    return Row(variant.name, variant.recipe, variant.runtime, found)
