"""The narrow interfaces between the rooms: what a task, an engine and a backend must do.

Nothing here imports torch, Ray or FastAPI, so that each side can be tested with a small fake.
"""

from serving.seams.backend import (
    Backend,
    Backends,
    Description,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    GenerationTimings,
    InferenceRequest,
    Message,
    Outcome,
    ServedModel,
    TextLogprob,
    Timings,
    VariantStatus,
)
from serving.seams.checkpoint import (
    Checkpoint,
    WeightShape,
)
from serving.seams.encoder import (
    EncoderEngine,
    EncoderHead,
    TokenBatch,
)
from serving.seams.footprint import (
    DeviceName,
    Footprint,
)
from serving.seams.generator import (
    Decoder,
    FinishReason,
    GeneratedToken,
    GeneratorEngine,
    GeneratorLoad,
    Progress,
    Sampling,
    Segment,
    TokenIterator,
    TokenLogprob,
    TokenRequest,
)
from serving.seams.task import (
    EncoderTask,
    GenerationTask,
    TextStream,
)
from serving.seams.variant import (
    GeneratorRequest,
    LoadRequest,
    NoOptions,
    Variant,
)

__all__ = [
    "Backend",
    "Backends",
    "Checkpoint",
    "Decoder",
    "Description",
    "DeviceName",
    "EncoderEngine",
    "EncoderHead",
    "EncoderTask",
    "FinishReason",
    "Footprint",
    "GeneratedToken",
    "GenerationChunk",
    "GenerationRequest",
    "GenerationSummary",
    "GenerationTask",
    "GenerationTimings",
    "GeneratorEngine",
    "GeneratorLoad",
    "GeneratorRequest",
    "InferenceRequest",
    "LoadRequest",
    "Message",
    "NoOptions",
    "Outcome",
    "Progress",
    "Sampling",
    "Segment",
    "ServedModel",
    "TextLogprob",
    "TextStream",
    "Timings",
    "TokenBatch",
    "TokenIterator",
    "TokenLogprob",
    "TokenRequest",
    "Variant",
    "VariantStatus",
    "WeightShape",
]
