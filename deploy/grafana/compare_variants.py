"""*Compare variants*: one row per measure, one line per variant."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import VariableOption

from deploy.grafana.failures import CHOSEN, failures
from deploy.grafana.panels import (
    VARIANT,
    Panel,
    good_from,
    lines,
    new_dashboard,
    tiles,
    with_rows,
)

REQUEST_LIMITS_S = (0.0985, 0.222, 0.499)
"""Bounds of buckets of the request duration, around the objective of the alerts."""

FIRST_TOKEN_LIMITS_S = (0.64, 1.28, 2.56)
"""Likewise of the time to the first token."""

PERCENTILES = ("p50", "p95", "p99")


def build() -> dashboard.Dashboard:
    """The dashboard by which one chooses a variant."""
    board = new_dashboard(
        "Compare variants",
        "quantserve-compare",
        "What each variant costs in time and memory, and what it loses. Latencies compare variants "
        "only where they get like requests at like rates.",
    ).with_variable(_percentile())
    rows = {
        "Objectives": _objectives(),
        "Requests": _requests(),
        "Latency": _latency(),
        "Where the time goes": _phases(),
        "Batches": _batches(),
        "Tokens": _tokens(),
        "Generation": _generation(),
        "Memory": _memory(),
        "Quality": _quality(),
    }
    return with_rows(board, rows)


def _percentile() -> dashboard.CustomVariable:
    return (
        dashboard.CustomVariable("percentile")
        .label("Percentile")
        .values(",".join(PERCENTILES))
        .multi(True)
        .include_all(True)
        .current(VariableOption(selected=True, text=["p95"], value=["p95"]))
    )


def _objectives() -> list[Panel]:
    return [_answered_within(limit) for limit in REQUEST_LIMITS_S] + [
        _first_token_within(limit) for limit in FIRST_TOKEN_LIMITS_S
    ]


def _answered_within(limit_s: float) -> Panel:
    selected = 'operation!="generation", variant!="auto", status=~"2..|429|499|5.."'
    requests = _increase("requests_total", selected)
    return _share_within("Answered", limit_s, "request_duration_seconds", requests)


def _first_token_within(limit_s: float) -> Panel:
    series = "time_to_first_token_seconds"
    begun = _increase(f"{series}_count")
    selected = 'operation="generation", variant!="auto", status=~"429|5.."'
    unserved = _increase("requests_total", selected)
    return _share_within("First token", limit_s, series, f"{begun} or {unserved}")


def _share_within(what: str, limit_s: float, histogram: str, counted: str) -> Panel:
    """What ``quantserve:slo_burn`` in ``recording.yml`` counts, with any limit."""
    in_time = _increase(f"{histogram}_bucket", f'le="{limit_s:g}"')
    # Where all was refused there is no histogram.
    none = f"0 * {_increase('requests_total')}"
    return tiles(
        f"{what} within {limit_s:g} s",
        "Share over the whole time range; exact, since the limit is the bound of a bucket. What "
        "was refused (429) or failed (5xx) was not in time.",
        "percentunit",
        (
            f"sum by (model, variant) ({in_time} or {none})"
            f" / (sum by (model, variant) ({counted}) > 0)",
            VARIANT,
        ),
        good_from(("red", None), ("orange", 0.95), ("green", 0.99)),
    )


def _increase(series: str, *more: str) -> str:
    return f"increase(quantserve_{series}{{{', '.join([*more, CHOSEN])}}}[$__range])"


def _requests() -> list[Panel]:
    return [
        lines(
            "Request rate",
            "Requests answered per second, whatever their status.",
            "reqps",
            [(f"quantserve:requests:rate1m{{{CHOSEN}}}", VARIANT)],
            span=8,
        ),
        *failures(),
    ]


def _latency() -> list[Panel]:
    return [
        _per_percentile(
            "Request duration, $percentile",
            "From arrival to the end of an answer, to the deadline or until the client left, "
            "over a minute; known within a factor of 1.5.",
            "s",
            f"quantserve:request_duration_seconds:$percentile{{{CHOSEN}}}",
        ),
        _per_percentile(
            "Request duration as a multiple of the reference's, $percentile",
            "Below 1 is faster than the reference.",
            "none",
            f"quantserve:request_duration_seconds:${{percentile}}_to_reference{{{CHOSEN}}}",
        ),
    ]


def _per_percentile(title: str, description: str, unit: str, expression: str) -> Panel:
    """A panel that is drawn once for each percentile chosen."""
    panel = lines(title, description, unit, [(expression, VARIANT)], span=8)
    return panel.repeat("percentile").repeat_direction("h").max_per_row(len(PERCENTILES))


def _phases() -> list[Panel]:
    phases = {
        "queue_duration": ("Queue", "From tokenized until the first forward pass may begin."),
        "tokenize_duration": ("Tokenize", "Text to token ids."),
        "core_wait": ("Waiting for cores", "While other replicas of the node had them."),
        "forward_duration": ("Forward", "Encoders: the forward passes, without waits for cores."),
        "prefill_duration": ("Prefill", "Generators: up to the first token, likewise."),
        "decode_duration": ("Decode", "Generators: from the first token to the last, likewise."),
    }
    return [
        lines(
            f"{title}, mean",
            description,
            "s",
            [(f"quantserve:{phase}_seconds:mean{{{CHOSEN}}}", VARIANT)],
            span=8,
        )
        for phase, (title, description) in phases.items()
    ]


def _batches() -> list[Panel]:
    return [
        lines(
            "Batch size, mean",
            "Encoders: texts per forward pass; generators: sequences per step.",
            "none",
            [(f"quantserve:batch_size:mean{{{CHOSEN}}}", VARIANT)],
        ),
        lines(
            "Running sequences",
            "Generators: sequences that take part in each step.",
            "none",
            [(f"sum by (model, variant) (quantserve_running_requests{{{CHOSEN}}})", VARIANT)],
        ),
    ]


def _tokens() -> list[Panel]:
    return [
        lines(
            "Input tokens per second",
            "Of texts that were answered and of prompts that were continued.",
            "none",
            [(f"quantserve:input_tokens:rate1m{{{CHOSEN}}}", VARIANT)],
        ),
        lines(
            "Output tokens per second",
            "Tokens generated, summed over sequences and replicas.",
            "none",
            [(f"quantserve:output_tokens:rate1m{{{CHOSEN}}}", VARIANT)],
        ),
    ]


def _generation() -> list[Panel]:
    return [
        _per_percentile(
            "Time to first token, $percentile",
            "From arrival to the first token of a sequence; known within a factor of 2.",
            "s",
            f"quantserve:time_to_first_token_seconds:$percentile{{{CHOSEN}}}",
        ),
        _per_percentile(
            "Time per output token, $percentile",
            "From the first token to the last, per token after the first.",
            "s",
            f"quantserve:time_per_output_token_seconds:$percentile{{{CHOSEN}}}",
        ),
    ]


def _memory() -> list[Panel]:
    return [
        lines(
            "Weights",
            "Parameters and buffers in their packed size, of one replica.",
            "bytes",
            [(f"quantserve:weights_bytes:mean{{{CHOSEN}}}", VARIANT)],
        ),
        lines(
            "Weights as a multiple of the reference's",
            "Below 1 is smaller than the reference.",
            "none",
            [(f"quantserve:weights_bytes:mean_to_reference{{{CHOSEN}}}", VARIANT)],
        ),
        lines(
            "Resident memory",
            "Of one replica's process, Python and its runtime included; CUDA: allocated by torch.",
            "bytes",
            [(f"quantserve:resident_bytes:mean{{{CHOSEN}}}", VARIANT)],
        ),
        lines(
            "Resident memory as a multiple of the reference's",
            "Below 1 is smaller than the reference.",
            "none",
            [(f"quantserve:resident_bytes:mean_to_reference{{{CHOSEN}}}", VARIANT)],
        ),
        lines(
            "Private memory",
            "The part of the resident memory that no other process can share: what one more "
            "replica costs that maps the same weights.",
            "bytes",
            [(f"quantserve:private_bytes:mean{{{CHOSEN}}}", VARIANT)],
        ),
        lines(
            "Private memory as a multiple of the reference's",
            "Below 1 is smaller than the reference.",
            "none",
            [(f"quantserve:private_bytes:mean_to_reference{{{CHOSEN}}}", VARIANT)],
        ),
        lines(
            "Cache of keys and values",
            "Generators: allocated when a replica starts, beside the weights.",
            "bytes",
            [(f"avg by (model, variant) (quantserve_kv_cache_bytes{{{CHOSEN}}})", VARIANT)],
        ),
        lines(
            "Cache of keys and values in use",
            "Share that sequences occupy, in the fullest replica.",
            "percentunit",
            [(f"max by (model, variant) (quantserve_kv_cache_used_ratio{{{CHOSEN}}})", VARIANT)],
        ),
    ]


def _quality() -> list[Panel]:
    by_origin = f"{VARIANT} {{{{origin}}}}"
    of_origin = "by (model, variant, origin)"
    by_dataset, of_dataset = "by (model, variant, dataset)", f"{VARIANT} {{{{dataset}}}}"
    return [
        lines(
            "Agreement with the reference",
            "Over the latest samples of each origin. An alarm, not a ranking: rank variants by "
            "labelled data.",
            "percentunit",
            [(f"avg {of_origin} (quantserve_quality_agreement_ratio{{{CHOSEN}}})", by_origin)],
            span=8,
        ),
        lines(
            "Agreement, lower end of the 95 % interval",
            "The truth may be that low. With few samples it is far below the agreement.",
            "percentunit",
            [(f"avg {of_origin} (quantserve_quality_agreement_low_ratio{{{CHOSEN}}})", by_origin)],
            span=8,
        ),
        lines(
            "Samples compared",
            "Since the process that compares has started.",
            "none",
            [(f"sum {of_origin} (quantserve_quality_samples_total{{{CHOSEN}}})", by_origin)],
            span=8,
        ),
        lines(
            "Verdict",
            "The one that holds.",
            "none",
            [
                (
                    "max by (model, variant, verdict)"
                    f" (quantserve_quality_verdict{{{CHOSEN}}}) == 1",
                    f"{VARIANT} {{{{verdict}}}}",
                )
            ],
            span=8,
        ),
        lines(
            "May be chosen by auto",
            "1 or 0.",
            "none",
            [(f"max by (model, variant) (quantserve_quality_in_auto{{{CHOSEN}}})", VARIANT)],
            span=8,
        ),
        lines(
            "Chosen by auto",
            "Requests per second, by the limit that no variant met.",
            "reqps",
            [
                (
                    "sum by (model, variant, missed)"
                    f" (rate(quantserve_auto_requests_total{{{CHOSEN}}}[$__rate_interval]))",
                    f"{VARIANT} missed: {{{{missed}}}}",
                )
            ],
            span=8,
        ),
        lines(
            "Accuracy on labelled examples",
            "Share whose label was met; known once an evaluation was asked for.",
            "percentunit",
            [(f"avg {by_dataset} (quantserve_quality_accuracy{{{CHOSEN}}})", of_dataset)],
        ),
        lines(
            "Perplexity on labelled text",
            "Lower is better; known once an evaluation was asked for.",
            "none",
            [(f"avg {by_dataset} (quantserve_quality_perplexity{{{CHOSEN}}})", of_dataset)],
        ),
    ]
