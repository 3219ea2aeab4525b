"""Series made real: registered with prometheus_client under their full names."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from serving.metrics.series import PREFIX, Series

disable_created_metrics()


def counter(series: Series, registry: CollectorRegistry) -> Counter:
    """Register a counter."""
    return Counter(PREFIX + series.name, series.help, series.labels, registry=registry)


def gauge(series: Series, registry: CollectorRegistry) -> Gauge:
    """Register a gauge."""
    return Gauge(PREFIX + series.name, series.help, series.labels, registry=registry)


def histogram(series: Series, registry: CollectorRegistry) -> Histogram:
    """Register a histogram with the buckets of ``series``."""
    return Histogram(
        PREFIX + series.name,
        series.help,
        series.labels,
        buckets=series.buckets,
        registry=registry,
    )
