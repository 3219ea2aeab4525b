"""Evidence that outlives the process: one SQLite file, one writer.

``records`` says what is kept and ``schema`` in which tables; ``writing``, ``reading`` and
``forgetting`` work on these, and ``keeping`` has them do so beside the event loop. What was learned
while there could be no file is in memory, and ``handing_over`` writes it once there is one.
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
