"""Where the measures of background requests go: into no series."""

from __future__ import annotations

from serving.seams import Progress


class BackgroundMetrics:
    """Takes what ``GeneratorMetrics`` takes of a request, and forgets it."""

    def __init__(self) -> None:
        self.output_tokens = _UncountedTokens()

    def observe_tokenize(self, duration_s: float) -> None:
        """Forget it; likewise the others."""

    def observe_prompt(self, tokens: int, cached_tokens: int) -> None:
        """Forget it."""

    def observe_first_token(self, since_arrival_s: float) -> None:
        """Forget it."""

    def observe_end(self, progress: Progress, tokens: int, since_first_token_s: float) -> None:
        """Forget it."""


class _UncountedTokens:
    def inc(self, amount: float = 1) -> None:
        """Forget it."""
