"""Whether a variant's passes take longer than its reference's, by what was measured of both."""

from __future__ import annotations

from serving.artifacts.pass_times import read_pass_times
from serving.artifacts.store import Artifact
from serving.cores.thread_choice import PassTimes, choose_threads

SLOWER = 1.1
"""Passes that take a tenth longer are called slower; less may be the measurement's own."""


def slowness(
    artifact: Artifact, reference: Artifact, name: str, draft: Artifact | None = None
) -> str | None:
    """A sentence with the times of both, if a variant is slower than its reference on this CPU.

    Args:
        artifact: The variant's.
        reference: The reference's, whose name is ``name``.
        name: See ``reference``.
        draft: What proposes tokens to the variant; None if nothing does.

    Returns:
        None if it is not, or if one of them has not been measured on this kind of CPU.
    """
    own, others = read_pass_times(artifact, draft), read_pass_times(reference)
    if own is None or others is None:
        return None
    here, there = _milliseconds(own), _milliseconds(others)
    if here <= SLOWER * there:
        return None
    return (
        f"slower than {name} on this CPU: a pass takes {here:.1f} ms, one of {name} {there:.1f} ms"
    )


def _milliseconds(times: PassTimes) -> float:
    """Of a pass on as many threads as it takes."""
    return 1e3 * times[choose_threads(times)]
