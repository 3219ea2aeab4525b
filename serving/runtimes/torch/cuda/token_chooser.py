"""Chooses tokens on the device, each row of a step with its own sampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_TOP_LOGPROBS = 20

NUM_INTEGERS, NUM_FLOATS = 4, 5
"""Arguments of a row: slot, whether its token is the first, top_k, the token that it shall be; then
temperature, top_p, the draw, frequency and presence penalty."""

FREE = -1
"""In place of the token that a row's shall be: it is chosen."""

LEAST_TEMPERATURE = 1e-30
"""Still above zero in float32."""


class TokenChooser:
    """Chooses the next token of every row of a step, as ``serving.generator.sampling`` does.

    All of it happens on the device in operations that do not depend on the values, so that a CUDA
    graph can hold them. Scores and log-probabilities are float32, sums of probabilities float64.

    Args:
        num_slots: Sequences at once; slot ``num_slots`` takes what nobody will read.
        vocabulary: Scores of a row.
        device: Of the scores.
    """

    def __init__(self, num_slots: int, vocabulary: int, device: torch.device) -> None:
        self.num_slots = num_slots
        self.num_top = min(MAX_TOP_LOGPROBS, vocabulary)
        self._counts = torch.zeros(num_slots + 1, vocabulary, dtype=torch.int32, device=device)
        self._report = torch.zeros(
            num_slots + 1, 1 + 2 * self.num_top, dtype=torch.float64, device=device
        )

    def choose(
        self,
        logits: Tensor,
        arguments: Tensor,
        with_draws: bool = True,
        with_penalties: bool = True,
        with_top: bool = True,
    ) -> Tensor:
        """Choose a token for each row and note its log-probability in the report.

        Args:
            logits: float32 (rows, vocabulary).
            arguments: int32 (NUM_INTEGERS + NUM_FLOATS, rows), the latter float32 by their bits.
            with_draws: Whether a row may have a temperature above 0. Saying yes needlessly only
                costs time, here and below.
            with_penalties: Whether a row may have penalties.
            with_top: Whether the most probable tokens of a row may be wanted.

        Returns:
            int64 (rows,).
        """
        slot, is_first, top_k, forced = arguments[:NUM_INTEGERS].long()
        floats = arguments[NUM_INTEGERS:].view(torch.float32).unsqueeze(-1)
        temperature, top_p, uniform, frequency, presence = floats
        scores = logits
        if with_penalties:
            counts = self._counts[slot] * (1 - is_first).unsqueeze(1).int()
            scores = logits - counts * frequency - (counts > 0) * presence
        tokens = scores.argmax(-1)
        if with_draws:
            drawn = draw(scores, temperature, top_p, top_k.unsqueeze(1), uniform)
            tokens = torch.where(temperature.squeeze(1) > 0, drawn, tokens)
        tokens = torch.where(forced == FREE, tokens, forced)
        chosen = tokens.unsqueeze(1)
        if with_penalties:
            counts.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=torch.int32))
            self._counts.index_copy_(0, slot, counts)
        logprobs = logits.log_softmax(-1)
        parts = [logprobs.gather(1, chosen).double()]
        if with_top:
            top = logprobs.topk(self.num_top)
            parts += [top.values.double(), top.indices.double()]
        noted = torch.cat(parts, 1)
        self._report[:, : noted.shape[1]].index_copy_(0, slot, noted)
        return tokens

    def report(self) -> NDArray[np.float64]:
        """What the step noted of each slot: (num_slots + 1, 1 + 2 num_top).

        The log-probability of the chosen token before temperature and penalties (NaN if logits
        are NaN or infinite), those of the most probable ones, and their ids.
        """
        noted: NDArray[np.float64] = self._report.cpu().numpy()
        return noted


def draw(
    scores: Tensor, temperature: Tensor, top_p: Tensor, top_k: Tensor, uniform: Tensor
) -> Tensor:
    """Draw a token for each row; see ``serving.generator.sampling.draw``.

    Args:
        scores: float32 (rows, vocabulary).
        temperature: float32 (rows, 1) like the others; the tokens of rows with 0 mean nothing.
        top_p: At least 0, which keeps the most probable token.
        top_k: int64 (rows, 1), at least 1.
        uniform: In [0, 1).

    Returns:
        int64 (rows,).
    """
    ordered, ids = scores.sort(dim=-1, descending=True, stable=True)
    temperature = temperature.double().clamp(min=LEAST_TEMPERATURE)
    weights = ((ordered.double() - ordered[:, :1]) / temperature).exp()
    weights *= torch.arange(scores.shape[1], device=scores.device) < top_k
    reached = weights.cumsum(-1)
    # The token that reaches top_p is kept, the one after it is not.
    weights[:, 1:] *= reached[:, :-1] < top_p * reached[:, -1:]
    by_id = torch.zeros_like(weights).scatter_(1, ids, weights)
    sums = by_id.cumsum(-1)
    return (sums <= uniform * sums[:, -1:]).sum(-1)


def encode_arguments(rows: Sequence[tuple[list[int], list[float]]]) -> Tensor:
    """Write the integers and floats of each row as int32 (NUM_INTEGERS + NUM_FLOATS, rows)."""
    integers = torch.tensor([row[0] for row in rows], dtype=torch.int32)
    floats = torch.tensor([row[1] for row in rows], dtype=torch.float32)
    return torch.cat([integers, floats.view(torch.int32)], 1).t()
