"""Every Prometheus series that quantserve exports: names, labels and buckets."""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "quantserve_"


def _geometric(first: float, ratio: float, count: int) -> tuple[float, ...]:
    """Rounded to three digits: they are read, and stand in every line of a histogram."""
    return tuple(float(f"{first * ratio**i:.3g}") for i in range(count))


@dataclass(frozen=True, slots=True)
class Series:
    """One metric family.

    Attributes:
        name: Without the prefix, and without the ``_total`` that ends a counter's.
        help: One sentence for operators.
        labels: Their names.
        buckets: Upper bounds of a histogram; empty for a counter or a gauge.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


# The page of a whole service is read every few seconds, so it should stay below 200 kB for three
# models of four variants, each asked on both paths. A bucket is a line of some 110 bytes for
# each replica, so:
# - What clients wait for is known within a factor of 1.5 (above 6 s, as a whole answer that is
#   generated may take, 2.25; the time to a first token: 2); the
#   phases behind it, which say where that time went, within 5; batches, whose mean is what one
#   looks at, within 8. Means are exact.
# - Nothing is resolved below 1 ms: no answer that passes Ray Serve is that fast.
# - Histograms have no label that the others determine. A model has one task: ``variant_info`` says
#   which.
# Empty buckets are not left out, though that would save more: a bucket that appears with its first
# count has no rate() in Prometheus for that count, and quantiles over short spans come out too
# large.

_REQUEST = _geometric(1e-4, 1.5, 34)
REQUEST_BUCKETS = (*_REQUEST[7:28], *_REQUEST[29::2])
FIRST_TOKEN_BUCKETS = _geometric(2e-2, 2, 12)
TOKEN_BUCKETS = _geometric(2e-3, 1.5, 14)
PHASE_BUCKETS = _geometric(2e-3, 5, 5)
CORE_WAIT_BUCKETS = _geometric(1e-2, 10, 2)
DECODE_BUCKETS = _geometric(8e-2, 5, 5)
TOKENIZE_BUCKETS = _geometric(1e-3, 10, 3)
BATCH_SIZE_BUCKETS = _geometric(1, 8, 3)
BATCH_TOKENS_BUCKETS = _geometric(64, 8, 3)

VARIANT = ("model", "variant", "replica")

# Where the client's answer is written: the gateway on the selecting path, else the replica.
REQUESTS = Series(
    "requests",
    "Requests answered, by HTTP status.",
    ("model", "variant", "operation", "status", "replica"),
)
REQUEST_DURATION = Series(
    "request_duration_seconds",
    "Time from arrival to the end of the answer (status below 400), the deadline (504) or the "
    "client's leaving (499).",
    VARIANT,
    REQUEST_BUCKETS,
)

# In every gateway.
GATEWAY_REQUESTS = Series("gateway_requests", "Requests under way.", ("replica",))
GATEWAY_LIMIT = Series("gateway_limit_requests", "Most of them; then 429.", ("replica",))

# In every replica.
QUEUE_DURATION = Series(
    "queue_duration_seconds",
    "Time from tokenized until the first pass may begin.",
    VARIANT,
    PHASE_BUCKETS,
)
CORE_WAIT = Series(
    "core_wait_seconds",
    "Time that passes waited for cores that other replicas had.",
    VARIANT,
    CORE_WAIT_BUCKETS,
)
TOKENIZE_DURATION = Series(
    "tokenize_duration_seconds", "Time to tokenize.", VARIANT, TOKENIZE_BUCKETS
)
INPUT_TOKENS = Series(
    "input_tokens",
    "Tokens of texts answered and of prompts continued.",
    VARIANT,
)
IN_FLIGHT_REQUESTS = Series("in_flight_requests", "Requests inside the replica.", VARIANT)
BUSY = Series(
    "busy_seconds",
    "Time with a request that somebody waits for.",
    VARIANT,
)
QUEUED_REQUESTS = Series(
    "queued_requests",
    "Requests (of a generator: sequences) before their first pass.",
    VARIANT,
)
QUEUE_LIMIT = Series("queue_limit_requests", "Most that queued_requests can be; then 429.", VARIANT)
BATCH_SIZE = Series(
    "batch_size",
    "Texts (of a generator: sequences) per pass.",
    VARIANT,
    BATCH_SIZE_BUCKETS,
)
WEIGHTS_BYTES = Series("weights_bytes", "Parameters and buffers in their packed size.", VARIANT)
RESIDENT_BYTES = Series(
    "resident_bytes",
    "Resident memory, shared pages by its share (CUDA: torch's).",
    VARIANT,
)
PRIVATE_BYTES = Series("private_bytes", "Resident memory that nobody else can share.", VARIANT)
PEAK_BYTES = Series("peak_bytes", "The largest that resident_bytes has been.", VARIANT)
LOAD_SECONDS = Series("load_seconds", "Time to load the variant.", VARIANT)
VARIANT_INFO = Series(
    "variant_info",
    "What the variant is; others are judged against role 'reference'.",
    (*VARIANT, "task", "role", "device", "runtime", "recipe", "isa", "artifact"),
)

# In the replicas of encoders.
FORWARD_DURATION = Series(
    "forward_duration_seconds",
    "Time from the first pass to the end of the last, without core_wait_seconds.",
    VARIANT,
    PHASE_BUCKETS,
)
BATCH_TOKENS = Series(
    "batch_tokens",
    "Tokens per pass, padding left out.",
    VARIANT,
    BATCH_TOKENS_BUCKETS,
)

# In the replicas of generators, per sequence.
TIME_TO_FIRST_TOKEN = Series(
    "time_to_first_token_seconds",
    "Time from arrival to a sequence's first token.",
    VARIANT,
    FIRST_TOKEN_BUCKETS,
)
TIME_PER_OUTPUT_TOKEN = Series(
    "time_per_output_token_seconds",
    "Time per token of a sequence after its first.",
    VARIANT,
    TOKEN_BUCKETS,
)
PREFILL_DURATION = Series(
    "prefill_duration_seconds",
    "Time from a sequence's first pass to its first token, without core_wait_seconds.",
    VARIANT,
    PHASE_BUCKETS,
)
DECODE_DURATION = Series(
    "decode_duration_seconds",
    "Time from a sequence's first token to its last, without core_wait_seconds.",
    VARIANT,
    DECODE_BUCKETS,
)
OUTPUT_TOKENS = Series("output_tokens", "Tokens generated.", VARIANT)
CACHED_INPUT_TOKENS = Series(
    "cached_input_tokens", "Tokens of prompts that were in the cache already.", VARIANT
)
DRAFTED_TOKENS = Series(
    "drafted_tokens",
    "Tokens of drafts: accepted, rejected, or unread behind one of those.",
    (*VARIANT, "outcome"),
)
RUNNING_REQUESTS = Series(
    "running_requests", "Sequences with a place in the cache of keys and values.", VARIANT
)
KV_CACHE_BYTES = Series(
    "kv_cache_bytes", "The cache of keys and values, no part of weights_bytes.", VARIANT
)
KV_CACHE_USED_RATIO = Series(
    "kv_cache_used_ratio", "Share of the cache that sequences occupy, 0 to 1.", VARIANT
)

# In the process that compares variants with the reference.
SIMILARITY_BUCKETS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
DIVERGENCE_BUCKETS = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
ORIGIN = ("model", "variant", "origin", "replica")

QUALITY_SAMPLES = Series(
    "quality_samples", "Answers compared with the reference's, by origin.", ORIGIN
)
QUALITY_AGREEMENT = Series(
    "quality_agreement_ratio", "Agreement with the reference over the latest samples.", ORIGIN
)
QUALITY_AGREEMENT_LOW = Series(
    "quality_agreement_low_ratio",
    "Lower end of the 95 % interval of quality_agreement_ratio.",
    ORIGIN,
)
QUALITY_SIMILARITY = Series(
    "quality_similarity",
    "Cosine of a live embedding to the reference's.",
    VARIANT,
    SIMILARITY_BUCKETS,
)
QUALITY_DIVERGENCE = Series(
    "quality_divergence",
    "Divergence of a live answer from the reference's, in nats.",
    VARIANT,
    DIVERGENCE_BUCKETS,
)
QUALITY_ACCURACY = Series(
    "quality_accuracy",
    "Share of labelled examples whose label was met.",
    ("model", "variant", "dataset", "replica"),
)
QUALITY_PERPLEXITY = Series(
    "quality_perplexity",
    "Perplexity on the labelled text.",
    ("model", "variant", "dataset", "replica"),
)
QUALITY_VERDICT = Series(
    "quality_verdict",
    "1 for the verdict that holds, else 0.",
    ("model", "variant", "verdict", "replica"),
)
QUALITY_IN_AUTO = Series(
    "quality_in_auto", "Whether `auto` may choose the variant, 0 or 1.", VARIANT
)

EVIDENCE_KEPT = Series("evidence_kept", "Whether evidence is written.", ("replica",))

# There and in the replicas, whose requests are sampled.
QUALITY_DROPPED = Series(
    "quality_dropped",
    "Sampled requests that were not compared, by reason.",
    ("model", "reason", "replica"),
)

# In the gateway that is asked for the page.
SCRAPE_EXPECTED = Series(
    "scrape_replicas_expected", "Replicas that run, of each configured variant.", VARIANT
)
SCRAPE_ANSWERED = Series("scrape_replicas_answered", "Replicas that this page has.", VARIANT)
GATEWAYS_EXPECTED = Series("scrape_gateways_expected", "Gateways that run.", ("replica",))
GATEWAYS_ANSWERED = Series(
    "scrape_gateways_answered", "Gateways whose counts this page has.", ("replica",)
)
CONTROLLER_AGE = Series(
    "controller_age_seconds", "Age of what Ray Serve's controller said last.", ("replica",)
)

# In every gateway.
AUTO_REQUESTS = Series(
    "auto_requests",
    "Requests that `auto` chose for, by the limit missed.",
    ("model", "variant", "missed", "replica"),
)
