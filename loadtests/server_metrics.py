"""What a server's ``/metrics`` and ``/v1/models`` say of one variant. Another server says less."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from loadtests.plan import Target
from loadtests.processes import CpuReading, cpu_between, read_cpu
from loadtests.rounds import ServerRound
from loadtests.target import metrics_text
from serving.metrics import series
from serving.metrics.series import Series

Page = dict[str, float]
"""Samples of one variant by name, summed over its replicas and other labels."""

MEANS: dict[str, Series] = {
    "queue": series.QUEUE_DURATION,
    "core_wait": series.CORE_WAIT,
    "tokenize": series.TOKENIZE_DURATION,
    "forward": series.FORWARD_DURATION,
    "prefill": series.PREFILL_DURATION,
    "decode": series.DECODE_DURATION,
    "batch_size": series.BATCH_SIZE,
    "batch_tokens": series.BATCH_TOKENS,
}

GAUGES: dict[str, Series] = {
    "weights_bytes": series.WEIGHTS_BYTES,
    "resident_bytes": series.RESIDENT_BYTES,
    "peak_bytes": series.PEAK_BYTES,
    "kv_cache_bytes": series.KV_CACHE_BYTES,
}

DESCRIBED = ("disk_bytes", "device", "isa", "runtime", "recipe")
"""Fields of ``/v1/models`` that are taken over."""


def read_page(text: str, model: str, variant: str) -> Page:
    """The samples of a variant; none if the text is no Prometheus page."""
    page: Page = defaultdict(float)
    try:
        for family in text_string_to_metric_families(text):
            if not family.name.startswith(series.PREFIX):
                continue
            for sample in family.samples:
                if (sample.labels.get("model"), sample.labels.get("variant")) == (model, variant):
                    page[sample.name] += sample.value
    except ValueError:
        return {}
    return dict(page)


@dataclass(frozen=True, slots=True)
class ServerReading:
    """Counts since the server started.

    Attributes:
        page: Of ``/metrics``; empty of a server that has none.
        cpu: None if the server is elsewhere.
    """

    page: Page
    cpu: CpuReading | None


async def read_server(target: Target, model: str, variant: str) -> ServerReading:
    """Read what the server has counted of a variant."""
    page = read_page(await metrics_text(target), model, variant)
    return ServerReading(page, read_cpu(target.url, model, variant))


def server_round(
    before: ServerReading, after: ServerReading, answered: int, entry: dict[str, Any]
) -> ServerRound:
    """What changed between two readings, and what held at the end.

    Args:
        before: Before the turn.
        after: After it.
        answered: Requests that went well in between, warm-up included.
        entry: What ``/v1/models`` says of the variant.
    """
    means = {}
    for name, histogram in MEANS.items():
        base = series.PREFIX + histogram.name
        count, total = (
            after.page.get(key, 0) - before.page.get(key, 0)
            for key in (f"{base}_count", f"{base}_sum")
        )
        # A replica that was replaced begins from 0.
        if count > 0 and total >= 0:
            means[name] = total / count
    if answered and (spent := cpu_between(before.cpu, after.cpu)) is not None:
        means["replica_cpu"], means["service_cpu"] = (seconds / answered for seconds in spent)
    last: dict[str, int | str] = {
        name: int(after.page[series.PREFIX + gauge.name])
        for name, gauge in GAUGES.items()
        if series.PREFIX + gauge.name in after.page
    }
    said = {name: entry[name] for name in DESCRIBED if entry.get(name) is not None}
    return ServerRound(means, last | said)
