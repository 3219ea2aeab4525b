"""Long texts are tokenized in a few threads, whatever their clients do meanwhile."""

from __future__ import annotations

import asyncio
import threading

import pytest
import tokenizers

from serving.errors import InputFails, InvalidField
from serving.replica.tokenizing import INLINE_CHARACTERS, MAX_THREADS, Tokenizing
from tests.unit.fakes.waiting import MAX_WAIT_S, let_others_act

LONG = INLINE_CHARACTERS + 1


class Tokenizer:
    """Tokenizes once ``gate`` is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.texts: list[str] = []

    def encode(self, text: str) -> bytes:
        self.texts.append(text)
        self.begun.release()
        assert self.gate.wait(MAX_WAIT_S)
        return text.encode()

    async def wait_for(self, begun: int) -> None:
        """Wait for so many texts to have begun."""
        for _ in range(begun):
            assert await asyncio.to_thread(self.begun.acquire, timeout=MAX_WAIT_S)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer()


async def test_no_more_threads_tokenize_than_may(tokenizer: Tokenizer) -> None:
    tokenizing = Tokenizing()
    texts = [str(number) for number in range(MAX_THREADS + 2)]
    tasks = [asyncio.create_task(tokenizing.run(LONG, tokenizer.encode, text)) for text in texts]
    await tokenizer.wait_for(MAX_THREADS)
    await let_others_act()
    assert sorted(tokenizer.texts) == texts[:MAX_THREADS]
    tokenizer.gate.set()
    assert await asyncio.gather(*tasks) == [text.encode() for text in texts]


async def test_who_gives_up_leaves_nothing_to_do(tokenizer: Tokenizer) -> None:
    tokenizing = Tokenizing()
    begun = [
        asyncio.create_task(tokenizing.run(LONG, tokenizer.encode, "begun"))
        for _ in range(MAX_THREADS)
    ]
    await tokenizer.wait_for(MAX_THREADS)
    waiting = asyncio.create_task(tokenizing.run(LONG, tokenizer.encode, "given up"))
    await let_others_act()
    waiting.cancel()
    tokenizer.gate.set()
    await asyncio.gather(*begun)
    assert await tokenizing.run(LONG, tokenizer.encode, "last") == b"last"
    assert tokenizer.texts == ["begun"] * MAX_THREADS + ["last"]


async def test_a_thread_that_nobody_waits_for_keeps_its_turn(tokenizer: Tokenizer) -> None:
    tokenizing = Tokenizing()
    for _ in range(MAX_THREADS):
        task = asyncio.create_task(tokenizing.run(LONG, tokenizer.encode, "given up"))
        await tokenizer.wait_for(1)
        task.cancel()
        await asyncio.wait([task])
    late = asyncio.create_task(tokenizing.run(LONG, tokenizer.encode, "late"))
    await let_others_act()
    assert tokenizer.texts == ["given up"] * MAX_THREADS
    tokenizer.gate.set()
    assert await late == b"late"


async def test_an_error_gives_the_turn_back() -> None:
    def refuse() -> None:
        raise InvalidField("a text is too long")

    tokenizing = Tokenizing()
    for _ in range(MAX_THREADS + 1):
        with pytest.raises(InvalidField):
            await tokenizing.run(LONG, refuse)


@pytest.mark.parametrize("characters", [1, LONG])
async def test_an_input_on_which_the_tokenizer_panics_is_refused(characters: int) -> None:
    # The pattern finds no end on a row of the same letter: Onigmo gives up, and Rust panics.
    hopeless = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    pattern = tokenizers.Regex("(a+)+$")
    hopeless.pre_tokenizer = tokenizers.pre_tokenizers.Split(pattern, "isolated")
    tokenizing = Tokenizing()
    with pytest.raises(InputFails, match="tokenizer fails on this input"):
        await tokenizing.run(characters, hopeless.encode, "a" * 40 + "b")
    assert (await tokenizing.run(characters, hopeless.encode, "a")).ids == [0]
