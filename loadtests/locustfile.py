"""Loads quantserve from Locust, for teams that live in it; variants are chosen by weight.

Run as ``locust -f loadtests/locustfile.py --host http://127.0.0.1:8000``, after ``pip install
'quantserve[locust]'``. The environment variables MODEL (minilm), OPERATION (embeddings) and
VARIANTS (``fp32:1,int4:3``) say what is asked. Locust's users wait for answers: it is a closed
loop, which hides what a slow server does to users of their own time. ``quantserve loadtest`` does
not.
"""

from __future__ import annotations

import os
import random

from locust import HttpUser, constant, task

from loadtests.bodies import ROUTES, headers, make_body
from loadtests.inputs import WORDS
from loadtests.plan import Scenario

WEIGHTS = {
    variant: float(weight or 1)
    for variant, _, weight in (
        entry.partition(":") for entry in os.environ.get("VARIANTS", "fp32,int8-dynamic").split(",")
    )
}
SCENARIO = Scenario.model_validate(
    {
        "model": os.environ.get("MODEL", "minilm"),
        "operation": (operation := os.environ.get("OPERATION", "embeddings")),
        "variants": tuple(WEIGHTS),
        "inputs": {"synthetic": {}},
        "arrivals": {"kind": "closed", "users": 1},
        "body": {"max_tokens": 32, "stream": False} if operation in ("completions", "chat") else {},
    }
)


class User(HttpUser):
    """Sends the next request when the last one's answer is there."""

    wait_time = constant(0)

    @task
    def ask(self) -> None:
        """One request of a variant drawn by weight, counted under the variant's name."""
        variant = random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]  # noqa: S311
        text = " ".join(random.choices(WORDS, k=20))  # noqa: S311
        name = f"{SCENARIO.model}:{variant}"
        self.client.post(
            ROUTES[SCENARIO.operation],
            data=make_body(SCENARIO, name, text),
            headers=headers(),
            name=name,
        )
