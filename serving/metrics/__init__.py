"""What quantserve measures of itself; ``series.py`` lists every series.

An ``EdgeMetrics`` counts requests where the client's answer is written: in the replica on the
direct path, in the gateway on the selecting path. A ``ReplicaMetrics`` says what a replica holds,
and an ``EncoderMetrics`` or a ``GeneratorMetrics`` beside it measures the work itself, whichever
way it came. Summed over the ``replica`` label each request is counted once.
"""

from serving.metrics.edge import EdgeMetrics
from serving.metrics.encoder import EncoderMetrics
from serving.metrics.exposition import CONTENT_TYPE, exposition, merge_expositions
from serving.metrics.generator import GeneratorMetrics
from serving.metrics.labels import Labels
from serving.metrics.replica import ReplicaMetrics

__all__ = [
    "CONTENT_TYPE",
    "EdgeMetrics",
    "EncoderMetrics",
    "GeneratorMetrics",
    "Labels",
    "ReplicaMetrics",
    "exposition",
    "merge_expositions",
]
