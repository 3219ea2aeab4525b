"""A replica's one variant is of one kind, or failed and then of both."""

from __future__ import annotations

import pytest

from serving.errors import InvalidField, NotReady
from serving.replica.single_variant import FailedBackend, SingleVariant
from serving.seams import VariantStatus
from tests.unit.fakes.backends import (
    FakeEncoderBackend,
    FakeGeneratorBackend,
    describe,
    describe_generator,
)
from tests.unit.fakes.encoder import FakeTask

NAME = "minilm", "int4"


async def test_an_encoder_is_no_generator() -> None:
    backend = FakeEncoderBackend("minilm:int4", ())
    single = SingleVariant(*NAME, backend)
    assert single.encoder(*NAME) is backend
    with pytest.raises(InvalidField, match="'minilm' does not generate"):
        single.generator(*NAME)
    expected = VariantStatus(*NAME, True, False, "", 1, describe(FakeTask()))
    assert await single.statuses() == [expected]


async def test_a_generator_is_no_encoder() -> None:
    backend = FakeGeneratorBackend()
    single = SingleVariant(*NAME, backend)
    assert single.generator(*NAME) is backend
    with pytest.raises(InvalidField, match="'minilm' generates; use /v1/completions"):
        single.encoder(*NAME)
    assert await single.describe() == describe_generator()


async def test_a_remark_is_told_as_soon_as_it_is_known() -> None:
    said: list[str] = []
    single = SingleVariant(
        *NAME, FakeEncoderBackend("minilm:int4", ()), lambda: said[-1] if said else None
    )
    assert (await single.describe()).remark is None
    said.append("slower than fp32")
    assert (await single.describe()).remark == "slower than fp32"
    [status] = await single.statuses()
    assert status.description is not None
    assert status.description.remark == "slower than fp32"


async def test_what_could_not_be_loaded_says_so_as_either_kind() -> None:
    failed = FailedBackend(NotReady("failed to load: no such kernel"))
    single = SingleVariant(*NAME, failed)
    assert single.encoder(*NAME) is failed
    assert single.generator(*NAME) is failed
    expected = VariantStatus(*NAME, False, True, "failed to load: no such kernel", 1, None)
    assert await single.statuses() == [expected]
