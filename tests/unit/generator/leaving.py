"""The ways in which a consumer leaves a stream of tokens."""

import asyncio

import pytest

from serving.generator.token_stream import TokenStream


async def read(stream: TokenStream) -> None:
    async for _ in stream:
        pass


async def close(stream: TokenStream) -> None:
    await stream.aclose()


async def close_while_another_task_waits(stream: TokenStream) -> None:
    waiting = asyncio.create_task(read(stream))
    await asyncio.sleep(0)
    await stream.aclose()
    await waiting


async def cancel_the_consumer(stream: TokenStream) -> None:
    consumer = asyncio.create_task(read(stream))
    await asyncio.sleep(0)
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer


WAYS_TO_LEAVE = [close, close_while_another_task_waits, cancel_the_consumer]
