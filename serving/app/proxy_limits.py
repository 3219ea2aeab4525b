"""How many requests HAProxy lets through to the replicas of each application at once."""

from __future__ import annotations

from collections.abc import Mapping

from serving.app.plan import Plan, PlannedVariant
from serving.config import ServerConfig
from serving.gateway.variant_status import GATEWAY_APPLICATION, application_name
from serving.tasks import TASKS


def most_under_way(plan: Plan, server: ServerConfig) -> Mapping[str, int]:
    """Requests (POST) to one process of an application, by the application's name.

    A replica that refuses a request has read it first: at several times its peak rate it would do
    little else (decision 44).
    """
    limits = {
        application_name(planned.model.name, planned.variant.name): _most_in_replica(planned)
        for planned in plan.variants
    }
    return {name: min(limit, server.max_requests_under_way) for name, limit in limits.items()} | {
        GATEWAY_APPLICATION: server.max_requests_under_way
    }


def _most_in_replica(planned: PlannedVariant) -> int:
    """What never fills the queue, or one request at work and one that waits.

    A pass takes more or fewer requests, as long as they are: if more were let through than fit into
    the queue, the replica would refuse the rest itself, all the time.
    """
    variant = planned.variant
    if TASKS[planned.model.task].kind == "generator":
        return variant.max_running_requests + variant.max_queued_requests
    return max(variant.max_queued_requests, 2)
