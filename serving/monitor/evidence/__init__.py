"""Evidence that outlives the process: one SQLite file, one writer.

``records`` says what is kept and ``schema`` in which tables; ``writing``, ``reading`` and
``forgetting`` work on these, and ``keeping`` has them do so beside the event loop.
"""

from serving.monitor.evidence.keeping import Evidence
from serving.monitor.evidence.records import (
    NOTHING_KNOWN,
    JudgedPair,
    KnownEvidence,
    LiveSample,
    ProbeStep,
    digest,
    file_digest,
)

__all__ = [
    "NOTHING_KNOWN",
    "Evidence",
    "JudgedPair",
    "KnownEvidence",
    "LiveSample",
    "ProbeStep",
    "digest",
    "file_digest",
]
