"""What requests say: a JSONL file, or random words of given lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from pydantic import Field, model_validator

from loadtests.randomness import random_numbers
from loadtests.section import Section, find_file
from serving.errors import ConfigError

WORDS = (
    *("the", "a", "film", "story", "people", "who", "find", "little", "is", "as", "it", "seems"),
    *("and", "nobody", "will", "say", "until", "last", "summer", "comes", "back", "with", "rain"),
    *("music", "strange", "letters", "old", "friends", "new", "roads", "quiet", "rooms", "bright"),
    *("colours", "slow", "trains", "warm", "bread", "open", "windows", "long", "evenings", "short"),
    *("answers", "heavy", "doors", "we", "saw", "every", "scene", "twice", "because", "critics"),
    *("praised", "its", "light", "camera", "work", "while", "others", "thought", "one", "hour"),
    *("would", "have", "been", "enough", "for", "them", "all"),
)

MAX_WORDS = 100_000

Message = dict[str, Any]
Input = str | tuple[Message, ...]
"""A text, or the messages of a chat."""


class Synthetic(Section):
    """Random English words.

    Attributes:
        distribution: Of the number of words: ``constant`` (mean), ``uniform`` (min to max) or
            ``lognormal`` (median ``mean``, and ``sigma``). A word takes some 1.3 tokens.
        mean: Words.
        sigma: Standard deviation of the logarithm.
        min: Fewest words.
        max: Most words.
    """

    distribution: Literal["constant", "uniform", "lognormal"] = "lognormal"
    mean: int = Field(default=20, ge=1, le=MAX_WORDS)
    sigma: Annotated[float, Field(gt=0, le=10)] = 0.5
    min: int = Field(default=1, ge=1, le=MAX_WORDS)
    max: int = Field(default=200, ge=1, le=MAX_WORDS)

    @model_validator(mode="after")
    def _check(self) -> Synthetic:
        if self.min > self.max:
            raise ValueError(f"min: {self.min} is more than max, {self.max}")
        return self


class Inputs(Section):
    """Where inputs come from; one of the two.

    Attributes:
        file: JSONL, ``{"input": …}``, ``{"prompt": …}`` or, for chat, ``{"messages": […]}`` a line;
            further keys are not read. Relative to the plan's folder, or
            ``package:import_name/path``. Its lengths are its own.
        synthetic: Random words.
    """

    file: str | None = None
    synthetic: Synthetic | None = None

    @model_validator(mode="after")
    def _check(self) -> Inputs:
        if (self.file is None) == (self.synthetic is None):
            raise ValueError("give either file or synthetic")
        return self


def input_source(
    inputs: Inputs, folder: Path, seed: tuple[int, ...]
) -> Callable[[int, int], list[Input]]:
    """A function of how many inputs were taken before and how many are needed now.

    A file's lines come in a new order in every pass through the file, so that none comes twice
    before all have come once: a server that remembers prompts would find a repeated one in its
    cache.

    Raises:
        ConfigError: The file is missing or a line of it cannot be sent; from this call.
    """
    if inputs.synthetic is not None:
        synthetic = inputs.synthetic
        return lambda taken, count: _random_texts(synthetic, count, (*seed, taken))
    lines = read_inputs(find_file(str(inputs.file), folder))

    def choose(taken: int, count: int) -> list[Input]:
        numbers = range(taken, taken + count)
        orders = {
            pass_: random_numbers("inputs", (*seed, pass_)).permutation(len(lines))
            for pass_ in {number // len(lines) for number in numbers}
        }
        return [lines[orders[number // len(lines)][number % len(lines)]] for number in numbers]

    return choose


def read_inputs(path: Path) -> list[Input]:
    """Read a JSONL file.

    Raises:
        ConfigError: A line has none of the keys, or there is no line; the line is named.
    """
    found: list[Input] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(_input_of(orjson.loads(line)))
        except (orjson.JSONDecodeError, ValueError) as error:
            raise ConfigError(f"{path}: line {number}: {error}") from None
    if not found:
        raise ConfigError(f"{path}: no inputs in it")
    return found


def _input_of(line: Any) -> Input:
    if not isinstance(line, dict):
        raise ValueError("expected a JSON object")
    for key in ("input", "prompt"):
        if isinstance(line.get(key), str) and line[key]:
            return str(line[key])
    messages = line.get("messages")
    if isinstance(messages, list) and messages and all(isinstance(m, dict) for m in messages):
        return tuple(messages)
    raise ValueError('expected a text under "input" or "prompt", or a list under "messages"')


def _random_texts(synthetic: Synthetic, count: int, seed: tuple[int, ...]) -> list[Input]:
    random = random_numbers("inputs", seed)
    match synthetic.distribution:
        case "constant":
            lengths = np.full(count, synthetic.mean)
        case "uniform":
            lengths = random.integers(synthetic.min, synthetic.max + 1, count)
        case "lognormal":
            drawn = synthetic.mean * random.lognormal(0, synthetic.sigma, count)
            # At once, for int64 holds no infinity.
            lengths = drawn.clip(max=synthetic.max).round().astype(np.int64)
    lengths = lengths.clip(synthetic.min, synthetic.max)
    return [" ".join(WORDS[i] for i in random.integers(len(WORDS), size=n)) for n in lengths]
