"""Keeps evidence beside the event loop, and goes on in memory where there can be no file."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, Literal, ParamSpec, TypeVar

from serving.config import ModelConfig
from serving.monitor.evidence import forgetting, reading, writing
from serving.monitor.evidence.course import course
from serving.monitor.evidence.handing_over import hand_over
from serving.monitor.evidence.records import (
    NOTHING_KNOWN,
    JudgedPair,
    KnownEvidence,
    LiveSample,
    ProbeStep,
)
from serving.monitor.evidence.schema import CannotKeep, FileInUse, open_file, open_memory
from serving.quality.labels import LabelledScore
from serving.seams import CourseStep, Input, LabelReport, VerdictChange

logger = logging.getLogger("ray.serve.quantserve")

DAY_S = 86_400.0

FORGET_EVERY_S = 3_600.0

MEMORY_DAYS = 1.0
"""How long evidence is kept that has no file: it is a megabyte in some thousand samples."""

LAST_PROCESS_S = 5.0
"""How long the file may still be in the hands of the process that this one replaces."""

LOOK_S = 0.2

TRY_AGAIN_S = 60.0
"""How often a process without a file tries to have one."""

P = ParamSpec("P")
Found = TypeVar("Found")
Operation = Callable[Concatenate[sqlite3.Connection, P], Found]
Act = Literal["written", "forgotten", "read"]

WORKS_AGAIN: Mapping[Act, tuple[Act, ...]] = {
    "written": ("written", "forgotten"),
    "forgotten": (),
    "read": ("read",),
}
"""What it is that an act which succeeds says so of. A full disk can be read, and there may be
nothing to forget."""


class Evidence:
    """Reads and writes evidence, one thing after the other, in a thread of its own.

    A write is over when its transaction is: whoever waits for it before the next comparison loses
    at most the one in flight if the process is killed. The event loop waits for no disk. None of
    the methods raises what a disk can cause: the log and ``not_kept`` say it.

    Args:
        folder: Where the file is or will be; ``~`` is the home folder.
        models: Say for how long evidence is kept, and how many inputs.
        clock: Seconds since 1970.
    """

    def __init__(
        self, folder: Path, models: Sequence[ModelConfig], clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder.expanduser().absolute()
        self._qualities = {model.name: model.quality for model in models}
        self._clock = clock
        self._thread: Executor = ThreadPoolExecutor(1, "evidence")
        self._db = open_memory()
        self._lock: int | None = None
        self._has_no_file = ""
        self._failing: dict[Act, str] = {}

    @property
    def not_kept(self) -> str:
        """Why what is learned now does not outlive the process; empty if it does."""
        return self._has_no_file or next(iter(self._failing.values()), "")

    async def open(self) -> None:
        """Open the file; if it cannot be, all goes on in memory."""
        deadline = time.monotonic() + LAST_PROCESS_S
        while True:
            why_not = await self._take_file()
            if not isinstance(why_not, FileInUse) or time.monotonic() >= deadline:
                break
            await asyncio.sleep(LOOK_S)
        if self._has_no_file:
            logger.warning("evidence of quality is kept %s", self._has_no_file)
        await self.forget()

    async def keep_bounded(self) -> None:
        """Forget what is too old, until cancelled, or until there is a file that was missing.

        What was learned meanwhile is in it then. What it held before is for the process to read
        that takes the place of this one.
        """
        forget_at = time.monotonic() + FORGET_EVERY_S
        while True:
            await asyncio.sleep(TRY_AGAIN_S)
            if self._has_no_file and await self._take_file() is None:
                logger.warning("evidence of quality is kept in %s from now on", self._folder)
                return
            if time.monotonic() >= forget_at:
                await self.forget()
                forget_at = time.monotonic() + FORGET_EVERY_S

    async def forget(self) -> None:
        """Forget what is too old, and inputs that may be kept no longer."""
        now = self._clock()
        longest = MEMORY_DAYS if self._has_no_file else float("inf")
        before = {
            model: now - DAY_S * min(quality.keep_days, longest)
            for model, quality in self._qualities.items()
        }
        keep = {model: quality.keep_samples for model, quality in self._qualities.items()}
        await self._try("forgotten", None, forgetting.forget_old, before)
        await self._try("forgotten", None, forgetting.forget_inputs, keep)

    async def add_step(self, pair: JudgedPair, probe_set: str, step: ProbeStep) -> None:
        """Take what came of one turn of probing."""
        await self._try("written", None, writing.add_step, self._clock(), pair, probe_set, step)

    async def add_live(self, pair: JudgedPair, probe_set: str, sample: LiveSample) -> None:
        """Take a live sample; its input is kept only if the configuration allows it."""
        keep = self._qualities[pair.model].keep_samples
        sample = sample if keep else LiveSample(sample.comparison, None)
        await self._try(
            "written", None, writing.add_live, self._clock(), pair, probe_set, sample, keep
        )

    async def add_scores(
        self, pair: JudgedPair, data_set: str, first: int, scores: Sequence[LabelledScore]
    ) -> None:
        """Take how a variant did on consecutive labelled examples, from the index ``first`` on."""
        await self._try(
            "written", None, writing.add_scores, self._clock(), pair, data_set, first, scores
        )

    async def add_labels(self, pair: JudgedPair, data_set: str, report: LabelReport) -> None:
        """Take the result of an evaluation."""
        await self._try("written", None, writing.add_labels, self._clock(), pair, data_set, report)

    async def add_verdict(self, pair: JudgedPair, change: VerdictChange) -> None:
        """Take a change of a verdict."""
        await self._try("written", None, writing.add_verdict, pair, change)

    async def known(self, pair: JudgedPair, probe_set: str, data_set: str | None) -> KnownEvidence:
        """Return what is known of a pair with these probes and these labelled data."""
        return await self._try("read", NOTHING_KNOWN, reading.known, pair, probe_set, data_set)

    async def known_scores(self, pair: JudgedPair, data_set: str) -> list[LabelledScore]:
        """How a variant did on the labelled examples, from the first one on, none missing."""
        return await self._try("read", [], reading.known_scores, pair, data_set)

    async def live_inputs(self, model: str) -> tuple[Input, ...]:
        """The latest live inputs of a model that may be kept, the oldest first."""
        count = self._qualities[model].keep_samples
        nothing: tuple[Input, ...] = ()
        return await self._try("read", nothing, reading.live_inputs, model, count)

    async def history(self, since: float) -> Mapping[str, tuple[VerdictChange, ...]]:
        """Changes of verdicts since a time, by model, the oldest first."""
        nothing: dict[str, tuple[VerdictChange, ...]] = {}
        return await self._try("read", nothing, reading.history, since)

    async def course(self, model: str, since: float, step_s: float) -> tuple[CourseStep, ...]:
        """How a model's agreements went since a time, by steps of ``step_s`` seconds."""
        nothing: tuple[CourseStep, ...] = ()
        return await self._try("read", nothing, course, model, since, step_s)

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock()

    def close(self) -> None:
        """Close the file, for another process to open."""
        self._thread.shutdown()
        self._db.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _take_file(self) -> CannotKeep | None:
        """Go on in the file; returns why not, if it cannot be."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._move_to_file)
        except CannotKeep as error:
            self._has_no_file = f"in memory only: {error}"
            return error
        self._has_no_file = ""
        return None

    def _move_to_file(self) -> None:
        db, lock = open_file(self._folder)
        try:
            hand_over(self._db, db)
        except sqlite3.Error as error:
            db.close()
            os.close(lock)
            raise CannotKeep(f"{self._folder}: cannot be written: {error}") from None
        self._db.close()
        self._db, self._lock = db, lock

    async def _try(
        self,
        act: Act,
        otherwise: Found,
        operation: Operation[P, Found],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> Found:
        """Have the thread do something; ``otherwise`` is the answer if it cannot be done."""
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: operation(self._db, *arguments, **options)
            )
        except (sqlite3.Error, ValueError) as error:  # a disk may be full, a file spoilt
            failing = f"{self._folder}: evidence cannot be {act} at the moment: {error}"
            if failing != self._failing.get(act):
                logger.error("%s", failing, exc_info=error)
            self._failing[act] = failing
            return otherwise
        for one in WORKS_AGAIN[act]:
            self._failing.pop(one, None)
        return found
