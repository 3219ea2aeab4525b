"""*Compare variants*: one row per measure, one line per variant."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, timeseries
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue, VariableOption

from deploy.grafana.failures import CHOSEN, failures
from deploy.grafana.panels import (
    HEIGHT,
    VARIANT,
    Panel,
    bands,
    good_from,
    lines,
    new_dashboard,
    tiles,
    with_collapsed_rows,
    with_rows,
)

REQUEST_LIMITS_S = (0.0985, 0.222, 0.499)
"""Bounds of buckets of the request duration, around the objective of the alerts."""

FIRST_TOKEN_LIMITS_S = (0.64, 1.28, 2.56)
"""Likewise of the time to the first token."""

DECIDING_LIMITS_S = (REQUEST_LIMITS_S[1], FIRST_TOKEN_LIMITS_S[1])
"""Of an answer and of a first token, as in the alerts."""

VERDICTS = {
    0: ("indistinguishable", "green"),
    1: ("not enough samples", "text"),
    2: ("degraded", "orange"),
    3: ("failing", "red"),
}
"""Each by a number, since a band over time is of numbers."""

MULTIPLE = "× reference"

PERCENTILES = ("p50", "p95", "p99")


def build() -> dashboard.Dashboard:
    """The dashboard by which one chooses a variant."""
    board = new_dashboard(
        "Compare variants",
        "quantserve-compare",
        "What each variant costs in time and memory, and what it loses. Latencies compare variants "
        "only where they get like requests at like rates.",
    ).with_variable(_percentile())
    details = {
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
    return with_collapsed_rows(with_rows(board, {"What decides": _deciding()}), details)


def _deciding() -> list[Panel]:
    """The eight by which a variant is chosen; the other rows explain them."""
    answered, first = DECIDING_LIMITS_S
    in_time, counted = _in_time("request_duration_seconds", answered), _answered()
    first_in_time = _in_time("time_to_first_token_seconds", first)
    return [
        tiles(
            "In time",
            f"Share within {answered:g} s, where text is generated its first token within "
            f"{first:g} s, over the whole time range. What was refused or failed was not.",
            "percentunit",
            (
                f"{_share(in_time, counted)} or {_share(first_in_time, _begun())}",
                VARIANT,
            ),
            good_from(("red", None), ("orange", 0.95), ("green", 0.99)),
            span=12,
            height=HEIGHT,
        ),
        bands(
            "Verdict",
            "What is concluded from all samples and labels.",
            (_verdict(), VARIANT),
            VERDICTS,
        ),
        _with_ratio(
            lines(
                "p95, and as a multiple of the reference's",
                "From arrival to the end of an answer, over a minute; dashed and on the right "
                "the multiple, below 1 where the variant is faster.",
                "s",
                [
                    (f"quantserve:request_duration_seconds:p95{{{CHOSEN}}}", VARIANT),
                    (
                        f"quantserve:request_duration_seconds:p95_to_reference{{{CHOSEN}}}",
                        f"{VARIANT} {MULTIPLE}",
                    ),
                ],
            )
        ),
        lines(
            "Waiting for cores, mean",
            "While other replicas of the node had them.",
            "s",
            [(f"quantserve:core_wait_seconds:mean{{{CHOSEN}}}", VARIANT)],
        ),
        lines(
            "Goodput",
            f"Answers a second within {answered:g} s, or first tokens within {first:g} s.",
            "reqps",
            [
                (
                    f"sum by (model, variant) ({_rate_in_time(answered)}"
                    f' unless on (model, variant) quantserve_variant_info{{task="generation"}})'
                    f" or sum by (model, variant) ({_rate_first(first)})",
                    VARIANT,
                )
            ],
        ),
        lines(
            "Memory of one replica",
            "Resident, and its weights in their packed size.",
            "bytes",
            [
                (f"quantserve:resident_bytes:mean{{{CHOSEN}}}", VARIANT),
                (f"quantserve:weights_bytes:mean{{{CHOSEN}}}", f"{VARIANT} weights"),
            ],
        ),
        lines(
            "Agreement, and how low it may be",
            "With the reference, over the latest samples of each origin; low is the lower end of "
            "the 95 % interval.",
            "percentunit",
            [
                (_of_origin("quality_agreement_ratio"), f"{VARIANT} {{{{origin}}}}"),
                (_of_origin("quality_agreement_low_ratio"), f"{VARIANT} {{{{origin}}}} low"),
            ],
        ),
        lines(
            "Failed and rejected",
            "Shares answered with 5xx, and with 429 because the queue was full.",
            "percentunit",
            [
                (f"quantserve:requests_failed:ratio{{{CHOSEN}}}", f"{VARIANT} failed"),
                (f"quantserve:requests_rejected:ratio{{{CHOSEN}}}", f"{VARIANT} rejected"),
            ],
        ),
    ]


def _with_ratio(panel: timeseries.Panel) -> timeseries.Panel:
    """Draw the lines that are multiples by an axis of their own."""
    return panel.override_by_regexp(
        f"/{MULTIPLE}$/",
        [
            DynamicConfigValue(id_val="unit", value="none"),
            DynamicConfigValue(id_val="custom.axisPlacement", value="right"),
            DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [6, 6]}),
        ],
    )


def _verdict() -> str:
    """The number of ``VERDICTS`` that holds."""
    parts = [
        f"{number} * max by (model, variant)"
        f' (quantserve_quality_verdict{{verdict="{name}", {CHOSEN}}})'
        for number, (name, _) in VERDICTS.items()
    ]
    return " + ".join(parts)


def _of_origin(series: str) -> str:
    return f"avg by (model, variant, origin) (quantserve_{series}{{{CHOSEN}}})"


def _rate_in_time(limit_s: float) -> str:
    return _rate("request_duration_seconds_bucket", limit_s)


def _rate_first(limit_s: float) -> str:
    return _rate("time_to_first_token_seconds_bucket", limit_s)


def _rate(series: str, limit_s: float) -> str:
    return f'rate(quantserve_{series}{{le="{limit_s:g}", {CHOSEN}}}[$__rate_interval])'


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
    in_time = _in_time("request_duration_seconds", limit_s)
    return _share_within("Answered", limit_s, in_time, _answered())


def _first_token_within(limit_s: float) -> Panel:
    in_time = _in_time("time_to_first_token_seconds", limit_s)
    return _share_within("First token", limit_s, in_time, _begun())


def _answered() -> str:
    """Requests of encoders that were in time or could have been."""
    selected = 'operation!="generation", variant!="auto", status=~"2..|429|499|5.."'
    return _increase("requests_total", selected)


def _begun() -> str:
    """Likewise of generators: sequences with a first token, and requests without."""
    selected = 'operation="generation", variant!="auto", status=~"429|5.."'
    unserved = _increase("requests_total", selected)
    return f"{_increase('time_to_first_token_seconds_count')} or {unserved}"


def _in_time(histogram: str, limit_s: float) -> str:
    # Where all was refused there is no histogram.
    in_time = _increase(f"{histogram}_bucket", f'le="{limit_s:g}"')
    return f"{in_time} or 0 * {_increase('requests_total')}"


def _share(in_time: str, counted: str) -> str:
    """What ``quantserve:slo_burn`` in ``recording.yml`` counts, with any limit."""
    return f"sum by (model, variant) ({in_time}) / (sum by (model, variant) ({counted}) > 0)"


def _share_within(what: str, limit_s: float, in_time: str, counted: str) -> Panel:
    return tiles(
        f"{what} within {limit_s:g} s",
        "Share over the whole time range; exact, since the limit is the bound of a bucket. What "
        "was refused (429) or failed (5xx) was not in time.",
        "percentunit",
        (_share(in_time, counted), VARIANT),
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
        lines(
            "Accepted drafts",
            "Share of the tokens that a draft proposed and that were read: as often as the draft's "
            "variant agrees with the one that checks it.",
            "percentunit",
            [
                (
                    f"{_drafted('accepted')} / {_drafted('accepted|rejected')}",
                    VARIANT,
                )
            ],
        ),
        lines(
            "Drafted tokens per second",
            "By what became of them: accepted, rejected, or unread behind one of those.",
            "none",
            [
                (
                    f"sum by (model, variant, outcome) (rate(quantserve_drafted_tokens_total"
                    f"{{{CHOSEN}}}[$__rate_interval]))",
                    f"{VARIANT} {{{{outcome}}}}",
                )
            ],
        ),
    ]


def _drafted(outcomes: str) -> str:
    selected = f'{CHOSEN}, outcome=~"{outcomes}"'
    rate = f"rate(quantserve_drafted_tokens_total{{{selected}}}[$__rate_interval])"
    return f"sum by (model, variant) ({rate})"


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
            "May be chosen by auto",
            "1 or 0.",
            "none",
            [(f"max by (model, variant) (quantserve_quality_in_auto{{{CHOSEN}}})", VARIANT)],
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
