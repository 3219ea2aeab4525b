"""What stands at a plan's target: which variants a scenario has, and what the server says of them.

Asked between turns only, never under load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from loadtests.bodies import headers
from loadtests.plan import Scenario, Target
from serving.errors import ConfigError

TIMEOUT_S = 30
NO_ANSWER = (aiohttp.ClientError, OSError, TimeoutError)

Entries = dict[tuple[str, str], dict[str, Any]]
"""What quantserve says of each variant, by model and variant; empty for another server."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Who takes part in a scenario.

    Attributes:
        variants: In the order of the plan, or of the server.
        reference: With whose answers the others' are compared; if it is none of them, there is
            nothing to compare with.
    """

    variants: tuple[str, ...]
    reference: str


async def list_variants(target: Target) -> Entries:
    """Ask ``/v1/models``.

    Raises:
        ConfigError: Nothing answers there.
    """
    try:
        status, text = await _get(target, "/v1/models")
    except NO_ANSWER as error:
        raise ConfigError(f"target.url: {target.url} does not answer: {error}") from None
    if status == 401:
        raise ConfigError(
            f"target.url: {target.url} asks for a key; set QUANTSERVE_SERVER__API_KEY"
        )
    try:
        said = [
            entry["quantserve"] for entry in orjson.loads(text)["data"] if "quantserve" in entry
        ]
        return {(entry["model"], entry["variant"]): entry for entry in said}
    except (ValueError, LookupError, TypeError):
        return {}


def contest(scenario: Scenario, entries: Entries) -> Contest:
    """Which variants take turns, and which one is the reference.

    Raises:
        ConfigError: The plan names a model or variant that the server does not have or that is not
            ready, or it names no variants and the server does not say which there are.
    """
    where = f"scenario {scenario.name!r}"
    served = [variant for model, variant in entries if model == scenario.model]
    if entries and not served:
        known = ", ".join(dict.fromkeys(model for model, _ in entries))
        raise ConfigError(f"{where}: the server has no model {scenario.model!r}; served: {known}")
    variants = scenario.variants or tuple(served)
    if not variants:
        raise ConfigError(f"{where}: name its variants; the server does not list them")
    for variant in variants if entries else ():
        if variant not in served:
            raise ConfigError(
                f"{where}: {scenario.model} has no variant {variant!r}; served: {', '.join(served)}"
            )
        entry = entries[scenario.model, variant]
        if not entry["ready"]:
            raise ConfigError(
                f"{where}: {scenario.model}:{variant} is not ready: {entry['reason']}"
            )
    if scenario.reference is not None and scenario.reference not in variants:
        raise ConfigError(
            f"{where}: reference {scenario.reference!r} is not among {', '.join(variants)}"
        )
    marked = [variant for variant in served if entries[scenario.model, variant]["reference"]]
    return Contest(variants, scenario.reference or (marked or variants)[0])


async def metrics_text(target: Target) -> str:
    """The server's ``/metrics``; empty if it has none."""
    try:
        status, text = await _get(target, "/metrics")
    except NO_ANSWER:
        return ""
    return text if status == 200 else ""


async def _get(target: Target, path: str) -> tuple[int, str]:
    """Status and text of a page.

    Raises:
        aiohttp.ClientError, OSError, TimeoutError: There is no answer.
    """
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (
        aiohttp.ClientSession(headers=headers(), timeout=timeout) as session,
        session.get(target.url + path) as response,
    ):
        return response.status, await response.text()
