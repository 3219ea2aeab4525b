"""What quantserve measures of itself; ``series.py`` lists every series.

An ``EdgeMetrics`` counts requests where the client's answer is written: in the replica on the
direct path, in the gateway on the selecting path. A ``ReplicaMetrics`` says what a replica holds,
and an ``EncoderMetrics`` or a ``GeneratorMetrics`` beside it measures the work itself, whichever
way it came, with ``DraftMetrics`` where tokens are proposed. A ``GatewayMetrics`` says how full a
gateway is, and a ``ScrapeMetrics`` in the one that is asked whether the page has every replica. A
``QualityMetrics`` says what is known of the variants' quality, and ``QualityDrops`` counts what was
sampled and not compared. Summed over
the ``replica`` label each request is counted once.
"""

from serving.metrics.drafts import DraftMetrics
from serving.metrics.edge import EdgeMetrics
from serving.metrics.encoder import EncoderMetrics
from serving.metrics.exposition import CONTENT_TYPE, exposition, merge_expositions
from serving.metrics.gateway import GatewayMetrics
from serving.metrics.generator import GeneratorMetrics
from serving.metrics.labels import Labels
from serving.metrics.quality import QualityMetrics
from serving.metrics.quality_drops import QualityDrops
from serving.metrics.replica import ReplicaMetrics
from serving.metrics.scrape import ScrapeMetrics

__all__ = [
    "CONTENT_TYPE",
    "DraftMetrics",
    "EdgeMetrics",
    "EncoderMetrics",
    "GatewayMetrics",
    "GeneratorMetrics",
    "Labels",
    "QualityDrops",
    "QualityMetrics",
    "ReplicaMetrics",
    "ScrapeMetrics",
    "exposition",
    "merge_expositions",
]
