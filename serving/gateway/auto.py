"""Chooses the variant of a request that states limits, from what is known of each variant."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from serving.config import ModelConfig, VariantConfig
from serving.errors import NotReady
from serving.gateway.auto_policy import (
    Candidate,
    Refusal,
    at_this_load,
    choose,
    in_words,
    misses,
)
from serving.gateway.background_refresh import RefreshedValue
from serving.gateway.cluster import RETRY_AFTER_S
from serving.gateway.latencies import Latencies
from serving.machine.cores import available_cores
from serving.seams import AutoChoice, Limits, QualityBoard, VariantQuality, VariantStatus
from serving.seams.auto import AutoView, Considered

Name = tuple[str, str]

Missing = tuple[str, VariantStatus | None]
"""A variant that is not ready, and what is known of its state."""

STATUSES_FIRST_WAIT_S = 5.0
QUALITY_FIRST_WAIT_S = 0.5
"""How long the first request waits; without a status nothing can be chosen."""

STATUSES_FORGOTTEN_AFTER_S = 60.0
"""After so long without a request the states are waited for again."""

LEARN_EVERY_S = 0.5
"""How old what is known of the calls of other gateways may be, while requests come."""

LEARNING_FIRST_WAIT_S = 0.5
LEARNT_FORGOTTEN_AFTER_S = 5.0
"""The first request after so long a pause waits for what other gateways have measured meanwhile."""

MAX_REASONS = 1_000
"""Most characters about variants that are not ready."""

MAX_REMEMBERED = 256
"""Limits whose last choice is remembered; clients may state any."""


class AutoRouter:
    """``VariantChooser`` of the gateway.

    It knows readiness and sizes from the replicas, quality from the process that compares, and
    times from the calls of all gateways; before there were any, from that process' single probes.

    Args:
        models: The configuration.
        statuses: Asks for the state of every variant.
        latencies: What the gateway has measured, and was told by the others.
        board: What is known of quality; with None only the reference's is.
        learn: Has ``latencies`` know what the other gateways have measured; None without others.
    """

    def __init__(
        self,
        models: Sequence[ModelConfig],
        statuses: Callable[[], Awaitable[Sequence[VariantStatus]]],
        latencies: Latencies,
        board: QualityBoard | None,
        learn: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._models = {model.name: model for model in models}
        self._latencies = latencies
        self._statuses: RefreshedValue[Mapping[Name, VariantStatus]] = RefreshedValue(
            "the state of the variants",
            _by_name(statuses),
            {},
            STATUSES_FIRST_WAIT_S,
            STATUSES_FORGOTTEN_AFTER_S,
        )
        self._quality: RefreshedValue[Mapping[Name, VariantQuality]] = RefreshedValue(
            "the quality of the variants", _qualities(board), {}, QUALITY_FIRST_WAIT_S
        )
        self._elsewhere = RefreshedValue(
            "what other gateways have measured",
            _learning(learn),
            None,
            LEARNING_FIRST_WAIT_S,
            LEARNT_FORGOTTEN_AFTER_S,
            LEARN_EVERY_S,
        )
        self._previous: OrderedDict[tuple[str, Limits], str] = OrderedDict()

    async def choose(self, model: str, limits: Limits) -> AutoChoice:
        """Choose a variant; see ``VariantChooser.choose``."""
        candidates, missing = await self._candidates(model)
        choice = self._choose(model, limits, candidates, missing)
        self._remember(model, limits, choice.variant)
        return choice

    async def explain(self, model: str, limits: Limits) -> AutoView:
        """Say what ``choose`` would do; see ``VariantChooser.explain``."""
        candidates, missing = await self._candidates(model)
        choice, refusal = None, ""
        try:
            choice = self._choose(model, limits, candidates, missing)
        except NotReady as error:
            refusal = error.message
        considered = {
            one.variant: self._considered(model, one, limits) for one in at_this_load(candidates)
        }
        considered |= {name: _not_ready(name, status) for name, status in missing}
        config = self._models[model]
        ordered = tuple(considered[variant.name] for variant in config.variants)
        return AutoView(config.slo_policy, choice, refusal, ordered)

    async def _candidates(self, model: str) -> tuple[list[Candidate], list[Missing]]:
        """The variants that are ready, and those that are not."""
        statuses = await self._statuses.get()
        qualities = await self._quality.get()
        await self._elsewhere.get()
        config = self._models[model]
        candidates, missing = [], []
        for variant in config.variants:
            status = statuses.get((model, variant.name))
            if status is None or not status.ready or status.description is None:
                missing.append((variant.name, status))
            else:
                quality = qualities.get((model, variant.name))
                candidates.append(self._candidate(config, variant, status, quality))
        return candidates, missing

    def _choose(
        self,
        model: str,
        limits: Limits,
        candidates: Sequence[Candidate],
        missing: Sequence[Missing],
    ) -> AutoChoice:
        """Choose, and remember nothing.

        Raises:
            NotReady: See ``VariantChooser.choose``.
        """
        if not candidates:
            raise _nothing_ready(model, missing)
        previous = self._previous.get((model, limits))
        choice = choose(candidates, limits, self._models[model].slo_policy, previous)
        if isinstance(choice, Refusal):
            not_ready = f"; not ready: {', '.join(name for name, _ in missing)}" if missing else ""
            raise NotReady(f"{model}:auto: {choice.reason}{not_ready}")
        return choice

    def _considered(self, model: str, candidate: Candidate, limits: Limits) -> Considered:
        missed = misses(candidate, limits)
        is_measured = self._latencies.figures(model, candidate.variant) is not None
        origin: Literal["requests", "probes"] = "requests" if is_measured else "probes"
        return Considered(
            variant=candidate.variant,
            out=in_words(candidate, missed, limits),
            missed=tuple(missed),
            p95_latency_s=candidate.p95_latency_s,
            cost_s=None if candidate.service_s is None else candidate.cost,
            quality_low=candidate.quality_low,
            weights_bytes=candidate.weights_bytes,
            in_flight=candidate.in_flight,
            origin=None if candidate.p95_latency_s is None else origin,
            num_measured=candidate.num_measured,
        )

    def _candidate(
        self,
        model: ModelConfig,
        variant: VariantConfig,
        status: VariantStatus,
        quality: VariantQuality | None,
    ) -> Candidate:
        assert status.description is not None
        measured = self._latencies.figures(model.name, variant.name)
        probe_s = quality.probe_p95_s if quality else None
        service_s = measured.service_s if measured else None
        unjudged = 1.0 if variant.name == model.reference else None
        return Candidate(
            variant=variant.name,
            p95_latency_s=measured.p95_s if measured else probe_s,
            service_s=service_s if service_s is not None else probe_s,
            device=status.description.device,
            share_of_machine=_share_of_machine(variant, status),
            quality_low=quality.quality_low if quality else unjudged,
            in_auto=quality.in_auto if quality else True,
            weights_bytes=status.description.weights_bytes,
            in_flight=self._latencies.in_flight(model.name, variant.name),
            num_measured=measured.count if measured else quality.num_timed if quality else 0,
        )

    def _remember(self, model: str, limits: Limits, variant: str) -> None:
        self._previous[model, limits] = variant
        self._previous.move_to_end((model, limits))
        if len(self._previous) > MAX_REMEMBERED:
            self._previous.popitem(last=False)


def _learning(
    learn: Callable[[], Awaitable[None]] | None,
) -> Callable[[None], Awaitable[None]]:
    async def read(_: None) -> None:
        if learn is not None:
            await learn()

    return read


def _by_name(
    statuses: Callable[[], Awaitable[Sequence[VariantStatus]]],
) -> Callable[[Mapping[Name, VariantStatus]], Awaitable[Mapping[Name, VariantStatus]]]:
    async def read(last: Mapping[Name, VariantStatus]) -> Mapping[Name, VariantStatus]:
        return {
            (status.model, status.variant): _described(
                status, last.get((status.model, status.variant))
            )
            for status in await statuses()
        }

    return read


def _described(status: VariantStatus, last: VariantStatus | None) -> VariantStatus:
    """Keep what a variant said of itself as long as it runs: busy replicas are late to say it."""
    is_silent = status.description is None and status.replicas > 0 and not status.failed
    if not is_silent or last is None or last.description is None:
        return status
    return replace(status, ready=True, reason="", description=last.description)


def _qualities(
    board: QualityBoard | None,
) -> Callable[[Mapping[Name, VariantQuality]], Awaitable[Mapping[Name, VariantQuality]]]:
    async def read(last: Mapping[Name, VariantQuality]) -> Mapping[Name, VariantQuality]:
        models = await board.report() if board else ()
        return {
            (model.model, quality.variant): _judged(
                quality, last.get((model.model, quality.variant))
            )
            for model in models
            for quality in model.variants
        }

    return read


def _judged(quality: VariantQuality, last: VariantQuality | None) -> VariantQuality:
    """Let a variant that failed stay away until there is a new verdict.

    A quality process that has just started has forgotten what it knew, and would let it back.
    """
    if last is None or last.in_auto or quality.verdict != "not enough samples":
        return quality
    return replace(quality, in_auto=False, quality_low=last.quality_low)


def _share_of_machine(variant: VariantConfig, status: VariantStatus) -> float:
    """Share of the cores that the variant's replicas use together; of a GPU, all of it."""
    if variant.threads is None or (status.description and status.description.device == "cuda"):
        return 1.0
    return min(variant.threads * status.replicas / available_cores(), 1.0)


def _not_ready(variant: str, status: VariantStatus | None) -> Considered:
    reason = status.reason if status else "not known yet"
    return Considered(variant, f"not ready: {reason}", (), None, None, None, None, 0, None)


def _nothing_ready(model: str, missing: Sequence[Missing]) -> NotReady:
    reasons = "; ".join(
        f"{variant} ({status.reason if status else 'not known yet'})" for variant, status in missing
    )
    has_failed = all(status is not None and status.failed for _, status in missing)
    return NotReady(
        f"{model}:auto: no variant is ready: {reasons[:MAX_REASONS]}",
        retry_after_s=None if has_failed else RETRY_AFTER_S,
    )
