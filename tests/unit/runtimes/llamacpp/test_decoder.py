"""The decoder on llama.cpp, against transformers itself, on tiny GGUF files in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from serving.errors import MayPass
from serving.runtimes.llamacpp.decoder import LlamaCppDecoder, computed_together
from serving.seams import Segment
from tests.unit.runtimes.tiny_generators import (
    VOCABULARY,
    logits_of,
    random_model,
    random_tokens,
    save_gguf,
)

HALF_PRECISION = 6e-3
"""Largest change of a row of logits, as a share of its length, that keys and values in float16
make, against transformers in float32: over four seeds it was 0.0043 at most, and below 1e-5 with a
cache in float32.
"""

CUT = 3e-3
"""Likewise, a prompt at once against one in pieces. Over four seeds it was 2e-5 in pieces of 17 and
0.0019 in single tokens: another order of sums tips the rounding of a key by a last bit.
"""

Logits = NDArray[np.float32]


def change(found: Logits, expected: Logits) -> float:
    lengths = np.linalg.norm(expected, axis=1)
    return float((np.linalg.norm(found - expected, axis=1) / lengths).max())


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = save_gguf(tmp_path_factory.mktemp("gguf"))
    return checkpoint.folder / str(checkpoint.gguf_file)


@pytest.fixture
def decoder(file: Path) -> LlamaCppDecoder:
    return LlamaCppDecoder(file, num_slots=4, slot_tokens=256, threads=1)


TEXT = random_tokens(120, seed=1)


def whole(decoder: LlamaCppDecoder, slot: int = 0) -> Logits:
    return decoder.step([Segment(slot, 0, TEXT, len(TEXT))])


def one_by_one(decoder: LlamaCppDecoder, slot: int = 0, start: int = 0) -> Logits:
    rows = [decoder.step([Segment(slot, i, [TEXT[i]])]) for i in range(start, len(TEXT))]
    return np.concatenate(rows)


def test_logits_are_those_of_transformers(decoder: LlamaCppDecoder) -> None:
    expected = logits_of(random_model(model_type="llama"), TEXT)
    for found in (whole(decoder), one_by_one(decoder)):
        assert found.shape == (len(TEXT), VOCABULARY)
        assert found.dtype == np.float32
        assert change(found, expected) < HALF_PRECISION


def test_a_prompt_in_pieces_is_the_prompt_at_once(decoder: LlamaCppDecoder) -> None:
    pieces = [
        decoder.step([Segment(1, start, TEXT[start : start + 17], len(TEXT[start : start + 17]))])
        for start in range(0, len(TEXT), 17)
    ]
    assert change(np.concatenate(pieces), whole(decoder)) < CUT


def test_single_tokens_do_not_depend_on_company(decoder: LlamaCppDecoder) -> None:
    alone = one_by_one(decoder)
    others = [random_tokens(len(TEXT), seed) for seed in (2, 3)]
    together = [
        decoder.step(
            [Segment(3, i, [TEXT[i]]), *(Segment(s, i, [o[i]]) for s, o in enumerate(others))]
        )
        for i in range(len(TEXT))
    ]
    assert np.array_equal(np.stack(together)[:, 0], alone)


def test_a_prompt_does_not_depend_on_company(decoder: LlamaCppDecoder) -> None:
    """Pieces of one token excepted: for those, attention has a kernel of its own."""
    alone = whole(decoder)[60:]
    other = random_tokens(60, seed=4)
    decoder.step([Segment(0, 0, other[:40]), Segment(1, 0, TEXT[:60])])
    company = [Segment(2, 0, other[:17], 0), Segment(0, 40, other[40:41])]
    together = decoder.step([*company, Segment(1, 60, TEXT[60:], 60)])
    assert np.array_equal(together[1:], alone)


def test_segments_of_one_length_are_computed_together_in_order_of_their_slots() -> None:
    slots_and_lengths = [(5, 1), (2, 9), (0, 1), (7, 9), (3, 4), (1, 1)]
    segments = [Segment(slot, 0, range(length)) for slot, length in slots_and_lengths]
    assert computed_together(segments) == [[2, 5, 0], [1, 3], [4]]


def test_rows_come_in_the_order_of_the_segments(decoder: LlamaCppDecoder) -> None:
    expected = whole(decoder)
    other = random_tokens(30, seed=5)
    found = decoder.step(
        [Segment(2, 0, other, 0), Segment(3, 0, TEXT[:50], 2), Segment(1, 0, TEXT[:20], 1)]
    )
    assert change(found, expected[[48, 49, 19]]) < CUT


def test_what_a_slot_held_before_is_forgotten(decoder: LlamaCppDecoder) -> None:
    fresh = one_by_one(decoder)
    decoder.step([Segment(0, 60, random_tokens(80, seed=9), 1)])
    assert np.array_equal(one_by_one(decoder, start=60), fresh[60:])
    assert np.array_equal(one_by_one(decoder), fresh)


def test_threads_change_little(decoder: LlamaCppDecoder) -> None:
    alone = whole(decoder)
    decoder.use_cores([0, 1])
    assert change(whole(decoder), alone) < CUT
    decoder.use_cores([0])
    assert np.array_equal(whole(decoder), alone)


def test_a_step_without_rows_has_none(decoder: LlamaCppDecoder) -> None:
    assert decoder.step([Segment(0, 0, TEXT[:9], 0)]).shape == (0, VOCABULARY)


def test_rows_belong_to_the_caller(decoder: LlamaCppDecoder) -> None:
    first = decoder.step([Segment(0, 0, TEXT[:9])])
    kept = first.copy()
    decoder.step([Segment(0, 9, TEXT[9:20])])
    assert np.array_equal(first, kept)


def test_a_failed_step_leaves_no_trace(decoder: LlamaCppDecoder) -> None:
    fresh = one_by_one(decoder)
    with pytest.raises(RuntimeError, match="llama_decode of 1 tokens returned"):
        decoder.step([Segment(1, 0, [VOCABULARY + 7])])
    assert np.array_equal(one_by_one(decoder, slot=1), fresh)


def test_the_cache_is_counted_and_takes_memory_when_it_is_used(file: Path) -> None:
    decoder = LlamaCppDecoder(file, num_slots=64, slot_tokens=2048, threads=1)
    numbers = 3 * 2 * 2 * 32
    assert decoder.kv_cache_bytes == 64 * 2048 * numbers * 2
    footprint = decoder.footprint()
    assert footprint.private_bytes < footprint.peak_bytes - decoder.kv_cache_bytes / 2


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(MayPass, match=r"llama.cpp cannot load model\.gguf: .+"):
        LlamaCppDecoder(file, num_slots=1, slot_tokens=256, threads=1)


def test_nan_that_a_sequence_leaves_in_its_slot_reaches_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values beyond float16, in which they are cached, as the first layer makes them of a token."""
    poison = VOCABULARY - 1
    checkpoint = save_gguf(tmp_path, change=lambda model: make_values_overflow(model, poison))
    decoder = LlamaCppDecoder(tmp_path / str(checkpoint.gguf_file), 2, slot_tokens=600, threads=1)
    text = [token for token in TEXT if token != poison]
    expected = decoder.step([Segment(1, 0, text[:40], 40)])
    assert np.isfinite(expected).all()
    # Unseen at first, and beyond the first block that attention reads.
    for pieces in ([0], [0, 0, 1]):
        start = 0
        for num_logits in pieces:
            prompt = [*text[:90], poison, *text[:9]]
            poisoned = decoder.step([Segment(0, start, prompt, num_logits)])
            start += len(prompt)
        assert not np.isfinite(poisoned).any()
        np.testing.assert_array_equal(decoder.step([Segment(0, 0, text[:40], 40)]), expected)
    # Nor whoever shares the step.
    both = decoder.step([Segment(0, 0, [poison, *text[:39]], 40), Segment(1, 0, text[:40], 40)])
    np.testing.assert_array_equal(both[40:], expected)


def make_values_overflow(model: Any, token: int) -> None:
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 0
        model.model.embed_tokens.weight[token] = 0
        model.model.embed_tokens.weight[token, 0] = 1
        model.model.layers[0].self_attn.v_proj.weight[:, 0] = 1e7
