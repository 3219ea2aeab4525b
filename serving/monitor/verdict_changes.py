"""When a verdict is worth a line in the history. A pure function."""

from __future__ import annotations

from serving.monitor.evidence import JudgedPair
from serving.seams import VariantQuality, VerdictChange


def verdict_change(
    last: VerdictChange | None, pair: JudgedPair, report: VariantQuality, at: float
) -> VerdictChange | None:
    """Return the change if a verdict is another one than before, or of other artifacts.

    Args:
        last: The variant's last one; None if there was none, and then too few samples are no news.
        pair: What is judged.
        report: What is concluded of it now.
        at: Now, in seconds since 1970.
    """
    change = VerdictChange(
        at=at,
        variant=report.variant,
        artifact=pair.artifact,
        reference_artifact=pair.reference_artifact,
        verdict=report.verdict,
        reason=report.reason,
        in_auto=report.in_auto,
        origins=report.origins,
        labels=report.labels,
    )
    if last is None:
        return None if report.verdict == "not enough samples" else change
    return None if _subject(last) == _subject(change) else change


def _subject(change: VerdictChange) -> tuple[str, str, str]:
    return change.verdict, change.artifact, change.reference_artifact
