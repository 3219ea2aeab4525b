"""Answers of tiny models, prepared and opened by a recipe with some options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving.runtimes.torch.decoder.opening import open_decoder
from serving.runtimes.torch.decoder.preparing import prepare_generator
from serving.seams import Checkpoint, Decoder, Pooled, Segment
from tests.unit.runtimes.closeness import Rows
from tests.unit.runtimes.tiny_generators import open_request, prepare_request, random_tokens
from tests.unit.runtimes.tiny_models import open_prepared, padded_batch, prepare

HEAD = Pooled()


def encoder_rows(root: Path, checkpoint: Checkpoint, recipe: str, **options: Any) -> Rows:
    """Vectors of one batch, of an encoder that calibrated on others."""
    folder = root / f"{recipe}{options}"
    prepare("torch", recipe, checkpoint, HEAD, folder, **options)
    batch = padded_batch([5, 60, 12, 33, 8, 21, 2, 47], seed=9)
    return open_prepared("torch", recipe, HEAD, folder, **options).forward(batch)


def opened_generator(root: Path, checkpoint: Checkpoint, recipe: str, **options: Any) -> Decoder:
    """A generator that calibrated on some texts."""
    folder = root / f"{recipe}{options}"
    folder.mkdir()
    prepare_generator(prepare_request(recipe, checkpoint, folder, **options))
    return open_decoder(open_request(recipe, folder, **options))


def generator_logits(root: Path, checkpoint: Checkpoint, recipe: str, **options: Any) -> Rows:
    """Logits of some tokens, of a generator that calibrated on others."""
    decoder = opened_generator(root, checkpoint, recipe, **options)
    return decoder.step([Segment(0, 0, random_tokens(60, seed=3), 60)])
