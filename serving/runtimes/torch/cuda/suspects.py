"""Whose fault it is that the logits of a step were no numbers.

Where one attention reads all sequences of a step, those of others with weight zero, NaN of one
makes the answers of all NaN, since zero times NaN is NaN. So tests run alone there, and whoever
answers alone begins again.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from serving.runtimes.torch.cuda.paged_steps import Job

Conclusion = Literal["broken", "fails", "restart"]
"""The model fails on everything; on this sequence; or not on this one."""


class Suspects:
    """Says what to test next, and concludes.

    The first test is a prompt that was answered before: if it fails, the model does. Of several
    sequences that shared steps each is tested then; if none fails alone, all of them fail.

    Args:
        share_steps: Whether sequences of one step can spoil each other.
    """

    def __init__(self, share_steps: bool) -> None:
        self.share_steps = share_steps
        self.jobs: list[Job] = []
        self._untested: deque[Job] = deque()
        self._failing: list[Job] = []

    def next_test(self, proven: tuple[int, ...]) -> tuple[int, ...] | None:
        """The next prompt to test; None if nobody is suspected.

        Args:
            proven: The one that was answered before.
        """
        if self._untested:
            job = self._untested[0]
            return (*job.request.prompt, *job.generated)
        return proven if self.jobs else None

    def conclude(self, is_answered: bool) -> list[tuple[Job, Conclusion]]:
        """Take what came of the test; return what is known of whom by now."""
        if self._untested:
            tested = self._untested.popleft()
            if not is_answered:
                self._failing.append(tested)
            if self._untested:
                return []
            failing = self._failing or self.jobs
            return self._all([(job, "fails" if job in failing else "restart") for job in self.jobs])
        if is_answered and self.share_steps and len(self.jobs) > 1:
            self._untested.extend(self.jobs)
            return []
        return self._all([(job, "fails" if is_answered else "broken") for job in self.jobs])

    def _all(self, conclusions: list[tuple[Job, Conclusion]]) -> list[tuple[Job, Conclusion]]:
        self.jobs, self._failing = [], []
        return conclusions
