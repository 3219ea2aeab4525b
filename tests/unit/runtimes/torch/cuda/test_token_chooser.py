"""Tokens chosen on the device, against those that the CPU's sampler chooses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from serving.generator.sampling import draw, log_probability
from serving.runtimes.torch.cuda.token_chooser import FREE, NUM_FLOATS, NUM_INTEGERS, TokenChooser
from serving.seams import Sampling
from tests.unit.generator.reference import sampling

VOCABULARY = 96


def arguments_of(rows: Sequence[tuple[int, bool, Sampling, float]]) -> torch.Tensor:
    integers = [[slot, first, how.top_k or VOCABULARY, FREE] for slot, first, how, _ in rows]
    floats = [
        [how.temperature, how.top_p, uniform, how.frequency_penalty, how.presence_penalty]
        for _, _, how, uniform in rows
    ]
    bits = np.array(floats, np.float32).view(np.int32)
    arguments = torch.from_numpy(np.hstack([np.array(integers, np.int32), bits]).T.copy())
    assert arguments.shape == (NUM_INTEGERS + NUM_FLOATS, len(rows))
    return arguments


@pytest.mark.parametrize("seed", range(20))
def test_the_device_draws_as_the_cpu_does(seed: int) -> None:
    chance = np.random.default_rng(seed)
    logits = chance.normal(size=(8, VOCABULARY)).astype(np.float32) * 3
    logits[:4] = logits[:4].round()  # ties
    logits[5, ::3] = -np.inf
    hows = [
        sampling(
            temperature=float(chance.choice([0.3, 1.0, 2.0])),
            top_p=float(chance.choice([1.0, 0.9, 0.3, 1e-6, 0.0])),
            top_k=int(chance.choice([0, 1, 4, VOCABULARY + 7])),
        )
        for _ in range(8)
    ]
    uniforms = chance.choice([0.0, 1 - 2.0**-24, *chance.random(4, dtype=np.float32)], 8).tolist()
    chooser = TokenChooser(8, VOCABULARY, torch.device("cpu"))
    rows = [(i, True, hows[i], uniforms[i]) for i in range(8)]
    tokens = chooser.choose(torch.from_numpy(logits), arguments_of(rows))
    assert tokens.tolist() == [draw(logits[i], hows[i], uniforms[i]) for i in range(8)]
    report = chooser.report()
    for i in range(8):
        wanted = log_probability(logits[i], int(tokens[i]), 0).logprob
        assert report[i, 0] == pytest.approx(wanted, abs=1e-5)


def test_rows_that_nobody_reads_touch_no_sequence() -> None:
    chooser = TokenChooser(2, VOCABULARY, torch.device("cpu"))
    how = sampling(frequency_penalty=100.0)
    logits = torch.zeros(4, VOCABULARY)
    logits[:, 3], logits[:, 5] = 2.0, 1.0
    idle = (2, True, sampling(), 0.0)
    for is_first, token in ((True, 3), (False, 5)):
        rows = [(0, is_first, how, 0.0), idle, (1, is_first, how, 0.0), idle]
        assert chooser.choose(logits, arguments_of(rows)).tolist() == [token, 3, token, 3]


def test_a_token_that_is_given_is_taken_with_its_own_log_probability() -> None:
    chooser = TokenChooser(2, VOCABULARY, torch.device("cpu"))
    logits = torch.randn(2, VOCABULARY, generator=torch.Generator().manual_seed(0))
    arguments = arguments_of([(0, True, sampling(temperature=2.0), 0.5), (1, True, sampling(), 0)])
    arguments[3, 0] = 7
    tokens = chooser.choose(logits, arguments)
    assert tokens.tolist() == [7, int(logits[1].argmax())]
    wanted = logits.double().log_softmax(-1)
    assert chooser.report()[0, 0] == pytest.approx(float(wanted[0, 7]), abs=1e-5)
