"""The way to the quality process."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

from serving import serve_application as calls
from serving.replica.quality_process import QualityProcess
from serving.seams import GeneratedSample, Sample, Trace

SAMPLE = GeneratedSample("tiny", "int4", Trace((1,), ()), "a prompt")


async def test_samples_are_offered_and_a_call_that_is_given_up_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names: list[str] = []
    offered: list[Sample] = []

    async def offer(sample: Sample) -> None:
        offered.append(sample)
        if len(offered) > 1:
            raise asyncio.CancelledError

    def get_app_handle(name: str) -> SimpleNamespace:
        names.append(name)
        return SimpleNamespace(offer=SimpleNamespace(remote=offer))

    monkeypatch.setattr(calls, "serve", SimpleNamespace(get_app_handle=get_app_handle))
    process = QualityProcess()
    await process.send(SAMPLE)
    with pytest.raises(RayActorError):
        await process.send(SAMPLE)
    assert names == ["quality"]
    assert offered == [SAMPLE] * 2
