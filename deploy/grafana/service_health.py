"""*Service health*: what runs, how full it is, and what is going wrong."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, text
from grafana_foundation_sdk.models.text import TextMode

from deploy.grafana.failures import CHOSEN, failures
from deploy.grafana.panels import (
    HEIGHT,
    VARIANT,
    Panel,
    good_from,
    lines,
    new_dashboard,
    tiles,
    with_collapsed_rows,
    with_rows,
)

INGRESS = 'proxy="http_frontend"'
"""HAProxy's front end that clients talk to."""

ALL = "all"

NOT_HERE = (
    "**Not here.** Behind Ray's Python proxy instead of HAProxy there are no series of the "
    "ingress. With `quantserve serve` there are none of Ray's own, which the next row shows: Ray's "
    "dashboard, whose agent serves them, runs on Kubernetes only. Replicas and their ends are "
    "counted from the service's own page."
)

RAY_ROW = "Ray (on Kubernetes)"


def build() -> dashboard.Dashboard:
    """The dashboard for whoever is on call."""
    board = new_dashboard(
        "Service health",
        "quantserve-health",
        "What runs, how full it is, and what is going wrong.",
    )
    rows = {
        "Now": _now(),
        "Replicas": _replicas(),
        "Saturation": _saturation(),
        "Errors": _errors(),
        "Objective": _objective(),
        "Memory": _memory(),
        "Ingress (HAProxy)": _ingress(),
        "The page itself": _page(),
    }
    return with_collapsed_rows(with_rows(board, rows), {RAY_ROW: _ray()})


def _now() -> list[Panel]:
    # 0 is green, so it is said of a service that answers; else the tile is empty.
    none_known = 'or 0 * count(up{job="quantserve"} == 1)'
    none_is_good = good_from(("green", None), ("red", 1))
    return [
        tiles(
            "Service",
            "Whether /metrics answers.",
            "none",
            ('up{job="quantserve"}', "{{instance}}"),
            good_from(("red", None), ("green", 1)),
            span=6,
        ),
        tiles(
            "Variants without a replica",
            "Configured, but nothing serves them.",
            "none",
            (
                "count(max by (model, variant) (quantserve_scrape_replicas_expected)"
                f" unless on (model, variant) quantserve_variant_info) {none_known}",
                ALL,
            ),
            none_is_good,
            span=6,
        ),
        tiles(
            "Replicas missing on /metrics",
            "They run, but did not answer the last scrape. A gateway counts as one, too.",
            "none",
            (
                "sum(clamp_min(quantserve_scrape_replicas_expected"
                " - quantserve_scrape_replicas_answered, 0)"
                " or clamp_min(quantserve_scrape_gateways_expected"
                " - quantserve_scrape_gateways_answered, 0))",
                ALL,
            ),
            none_is_good,
            span=6,
        ),
        tiles(
            "Alerts",
            "Ours that fire now.",
            "none",
            (
                f'count(ALERTS{{alertstate="firing", service="quantserve"}}) {none_known}',
                ALL,
            ),
            none_is_good,
            span=6,
        ),
    ]


def _replicas() -> list[Panel]:
    described = f"quantserve_variant_info{{{CHOSEN}}}"
    serving = f"count by (model, variant) ({described})"
    within_an_hour = (
        "count by (model, variant)"
        f" (count by (model, variant, replica) (last_over_time({described}[1h])))"
    )
    return [
        lines(
            "Replicas",
            "That serve, by variant.",
            "none",
            [(serving, VARIANT)],
            span=8,
        ),
        lines(
            "Replicas that ended within an hour",
            "Restarted after a failure or a deployment, or scaled down.",
            "none",
            [(f"{within_an_hour} - ({serving} or {within_an_hour} * 0)", VARIANT)],
            span=8,
        ),
        lines(
            "Time to load",
            "From the start of a replica until it serves, the longest.",
            "s",
            [(f"max by (model, variant) (quantserve_load_seconds{{{CHOSEN}}})", VARIANT)],
            span=8,
        ),
    ]


def _saturation() -> list[Panel]:
    return [
        lines(
            "Queue",
            "How full the fullest replica's queue is; at 100 % requests get 429.",
            "percentunit",
            [
                (
                    f"max by (model, variant) (quantserve_queued_requests{{{CHOSEN}}}"
                    f" / quantserve_queue_limit_requests{{{CHOSEN}}})",
                    VARIANT,
                )
            ],
            span=8,
        ),
        lines(
            "Requests in flight",
            "Inside the replicas, waiting or being answered.",
            "none",
            [(f"sum by (model, variant) (quantserve_in_flight_requests{{{CHOSEN}}})", VARIANT)],
            span=8,
        ),
        lines(
            "Cache of keys and values in use",
            "Share that sequences occupy, in the fullest replica of a generator.",
            "percentunit",
            [(f"max by (model, variant) (quantserve_kv_cache_used_ratio{{{CHOSEN}}})", VARIANT)],
            span=8,
        ),
    ]


def _errors() -> list[Panel]:
    return [
        lines(
            "Answers by status",
            "Per second.",
            "reqps",
            [
                (
                    "sum by (status)"
                    f" (rate(quantserve_requests_total{{{CHOSEN}}}[$__rate_interval]))",
                    "{{status}}",
                )
            ],
            span=8,
        ),
        *failures(),
        lines(
            "No variant found by auto",
            "Share of the requests for `auto`, answered with 5xx. What fails after it has found a "
            "variant is that variant's.",
            "percentunit",
            [('quantserve:auto_failed:ratio{model=~"$model"}', "{{model}}")],
            span=8,
        ),
    ]


def _objective() -> list[Panel]:
    meaning = (
        "Share of requests beyond the objective, refused and failed ones included, as a multiple "
        "of the share that may be."
    )
    return [
        lines(
            f"Burn over {span}",
            meaning,
            "none",
            [(f"quantserve:slo_burn:{span}{{{CHOSEN}}}", VARIANT)],
            span=6,
        )
        for span in ("5m", "30m", "1h", "6h")
    ]


def _memory() -> list[Panel]:
    return [
        lines(
            "Resident memory",
            "Of all replicas of a variant together.",
            "bytes",
            [(f"sum by (model, variant) (quantserve_resident_bytes{{{CHOSEN}}})", VARIANT)],
        ),
        lines(
            "Peak of the resident memory",
            "The largest that a replica has been; loading needs more than serving.",
            "bytes",
            [(f"max by (model, variant) (quantserve_peak_bytes{{{CHOSEN}}})", VARIANT)],
        ),
    ]


def _ingress() -> list[Panel]:
    return [
        lines(
            "Open connections",
            "Of clients.",
            "none",
            [(f"haproxy_frontend_current_sessions{{{INGRESS}}}", "connections")],
            span=6,
        ),
        lines(
            "Answers by class of status",
            "Per second, as clients get them; those that no replica wrote included.",
            "reqps",
            [
                (
                    "sum by (code) (rate(haproxy_frontend_http_responses_total"
                    f"{{{INGRESS}}}[$__rate_interval]))",
                    "{{code}}",
                )
            ],
            span=6,
        ),
        lines(
            "Failed, by route",
            "Share of the answers with 5xx, those included that the proxy wrote itself because no "
            "replica could. That of the gateway has its /v2/health/ready too.",
            "percentunit",
            [("quantserve:ingress_failed:ratio", "{{proxy}}")],
            span=6,
        ),
        lines(
            "Servers per route",
            "Replicas that HAProxy sends requests to.",
            "none",
            [('haproxy_backend_active_servers{proxy=~"http-.+"}', "{{proxy}}")],
            span=6,
        ),
        text.Panel()
        .title("")
        .mode(TextMode.MARKDOWN)
        .content(NOT_HERE)
        .span(24)
        .height(HEIGHT // 2),
    ]


def _page() -> list[Panel]:
    return [
        lines(
            "Time to gather and send the page",
            "As Prometheus sees it.",
            "s",
            [('scrape_duration_seconds{job="quantserve"}', "{{instance}}")],
        ),
        lines(
            "Samples on the page",
            "Each is a line.",
            "none",
            [('scrape_samples_scraped{job="quantserve"}', "{{instance}}")],
        ),
    ]


def _ray() -> list[Panel]:
    """Ray's own series, which the job ``ray`` of the PodMonitors keeps."""
    return [
        lines(
            "Healthy replicas",
            "As Ray Serve counts them, by application.",
            "none",
            [("sum by (application) (ray_serve_deployment_replica_healthy)", "{{application}}")],
            span=6,
        ),
        lines(
            "Actors",
            "By state. Replicas, the proxies and the controller are actors.",
            "none",
            [('sum by (State) (ray_actors{Source="gcs"})', "{{State}}")],
            span=6,
        ),
        lines(
            "Memory of the nodes",
            "In use, of all processes.",
            "bytes",
            [("max by (instance) (ray_node_mem_used_host)", "{{instance}}")],
            span=6,
        ),
        lines(
            "Object store",
            "Ray's shared memory, through which inputs and answers pass.",
            "bytes",
            [("sum by (instance) (ray_object_store_memory)", "{{instance}}")],
            span=6,
        ),
    ]
