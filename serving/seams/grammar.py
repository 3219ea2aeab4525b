"""What restricts the tokens of a sequence to texts of a form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TokenTable:
    """What the tokens of a model say.

    Attributes:
        raw: Bytes of each id as they stand within a text; none where the tokenizer has no such
            token.
        special: Ids that are no part of a text; their bytes are their names.
        stop: Ids after which the model has nothing to add.
    """

    raw: Sequence[bytes]
    special: frozenset[int]
    stop: frozenset[int]


class GrammarState(Protocol):
    """How far one sequence is in the texts of a grammar."""

    def allowed(self, num_tokens: int) -> NDArray[np.bool_]:
        """Which tokens may come next: (num_tokens,), true for at least one.

        A stop token is among them where the text may end.

        Raises:
            InvalidField: The grammar takes more work than a step may.
        """

    def advance(self, token: int) -> None:
        """Take the token that came, one of those that were allowed.

        Raises:
            InvalidField: See ``allowed``.
        """

    def copy(self) -> GrammarState:
        """Return a state of its own, as far as this one is."""


class Grammar(Protocol):
    """Texts that a sequence may become; the same for any number of them."""

    def begin(self) -> GrammarState:
        """Start a sequence."""
