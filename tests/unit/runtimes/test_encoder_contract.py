"""What every variant promises, whichever entries the table has."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from serving.checkpoint import weight_shapes
from serving.errors import ConfigError, SourceError
from serving.runtimes import VARIANTS, get_variant
from serving.seams import Checkpoint, EncoderEngine, TokenBatch
from tests.unit.runtimes.tiny_models import load, save_model

TASKS = ("embeddings", "classification")

# Mean cosine to fp32. Over four seeds the worst was 0.99991 (bf16), 0.9988 (int8) and 0.947 (int4),
# all of them for the five logits of the classifier, where errors do not average out.
AGREEMENT = {"fp32": 0.999999, "bf16": 0.9995, "int8-dynamic": 0.997, "int4": 0.92}

# Padding changes the order of the sums in attention, i.e. the last bits of its results. In fp32 it
# stays at that; elsewhere a last bit can tip the rounding of a later activation by a whole step, of
# which there are 256 (bfloat16) or 127 (int8) up to the largest. In int4 the batch also expands the
# weights, to bfloat16, where a single short row goes through the 4-bit kernel. Over four seeds the
# worst was 0.014 (bf16), 0.006 (int8) and 0.03 (int4).
BATCH_TOLERANCE = {"fp32": 1e-5, "bf16": 0.03, "int8-dynamic": 0.03, "int4": 0.06}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    return {task: save_model(tmp_path_factory.mktemp(task), task) for task in TASKS}


@pytest.fixture(scope="module")
def engines(checkpoints: dict[str, Checkpoint]) -> dict[tuple[str, str], EncoderEngine]:
    return {(v, task): load(v, checkpoints[task], task) for v in VARIANTS for task in TASKS}


def padded_batch(lengths: list[int], seed: int = 0) -> TokenBatch:
    ids = np.random.default_rng(seed).integers(1, 1000, (len(lengths), max(lengths)))
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    return TokenBatch(ids * mask, mask)


def row(batch: TokenBatch, index: int) -> TokenBatch:
    """The row ``index`` of ``batch`` without its padding."""
    length = int(batch.attention_mask[index].sum())
    part = (slice(index, index + 1), slice(length))
    return TokenBatch(batch.input_ids[part].copy(), batch.attention_mask[part].copy())


def mean_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / lengths).mean())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_equals_its_single_rows(
    engines: dict[tuple[str, str], EncoderEngine], variant: str, task: str
) -> None:
    engine, batch = engines[variant, task], padded_batch([40, 3, 17, 1, 40])
    together = engine.forward(batch)
    alone = np.concatenate([engine.forward(row(batch, i)) for i in range(5)])
    error = np.linalg.norm(together - alone, axis=1) / np.linalg.norm(alone, axis=1)
    assert error.max() < BATCH_TOLERANCE[variant]
    assert not np.allclose(together[0], together[4], atol=0.05), "answers must differ to compare"


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_of_equal_length_do_not_touch_each_other(
    engines: dict[tuple[str, str], EncoderEngine], variant: str
) -> None:
    engine, batch = engines[variant, "embeddings"], padded_batch([24] * 4)
    reversed_batch = TokenBatch(batch.input_ids[::-1].copy(), batch.attention_mask)
    # The same sums in the same order: only the last bits of a matrix product may depend on rows.
    np.testing.assert_allclose(
        engine.forward(batch), engine.forward(reversed_batch)[::-1], atol=1e-6
    )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_agree_with_fp32(
    engines: dict[tuple[str, str], EncoderEngine], variant: str, task: str
) -> None:
    batch = padded_batch([5, 60, 12, 33, 8, 21, 2, 47])
    rows = engines[variant, task].forward(batch)
    assert rows.dtype == np.float32
    assert rows.shape == (8, 128 if task == "embeddings" else 5)
    assert mean_cosine(rows, engines["fp32", task].forward(batch)) > AGREEMENT[variant]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_estimate_meets_the_real_size(
    engines: dict[tuple[str, str], EncoderEngine],
    checkpoints: dict[str, Checkpoint],
    variant: str,
    task: str,
) -> None:
    entry = get_variant(variant)
    shapes = weight_shapes(checkpoints[task])
    estimate = sum(entry.weight_bytes(shape, entry.options()) for shape in shapes)
    assert engines[variant, task].footprint().weights_bytes == pytest.approx(estimate, rel=0.02)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_size_on_disk_is_that_of_a_saved_file(
    engines: dict[tuple[str, str], EncoderEngine], variant: str
) -> None:
    engine = engines[variant, "embeddings"]
    file = io.BytesIO()
    saved = dict(engine.state_dict())
    torch.save(saved, file)
    headers = len(file.getvalue()) - engine.footprint().disk_bytes
    assert 0 < headers < 2_000 + len(saved) * 300


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_process_is_larger_than_the_weights(
    engines: dict[tuple[str, str], EncoderEngine], variant: str
) -> None:
    footprint = engines[variant, "embeddings"].footprint()
    assert footprint.weights_bytes < footprint.resident_bytes <= footprint.peak_bytes


@pytest.mark.parametrize("variant", VARIANTS)
def test_unknown_options_are_refused(variant: str) -> None:
    with pytest.raises(ValidationError, match="no_such_option"):
        get_variant(variant).options(no_such_option=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_missing_weights_are_refused(checkpoints: dict[str, Checkpoint], variant: str) -> None:
    with pytest.raises(SourceError, match=r"classifier\.bias"):
        load(variant, checkpoints["embeddings"], "classification")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_thread_that_calls_forward_gets_the_threads(
    checkpoints: dict[str, Checkpoint], variant: str
) -> None:
    seen: list[int] = []
    before = torch.get_num_threads()

    def work() -> None:
        torch.set_num_threads(2)
        engine.forward(padded_batch([4]))
        seen.append(torch.get_num_threads())

    engine = load(variant, checkpoints["embeddings"], "embeddings", threads=1)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    torch.set_num_threads(before)
    assert seen == [1]


def test_an_unknown_variant_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"int3.*fp32, bf16, int8-dynamic, int4"):
        get_variant("int3")


def test_the_table_and_its_estimates_import_no_torch() -> None:
    code = (
        "import sys; from serving.runtimes import VARIANTS, get_variant;"
        "from serving.seams import WeightShape;"
        "shape = WeightShape('a', (64, 64), False);"
        "[(v := get_variant(n)).weight_bytes(shape, v.options()) for n in VARIANTS];"
        "sys.exit(str({'torch', 'transformers'} & set(sys.modules)) if 'torch' in sys.modules"
        " or 'transformers' in sys.modules else 0)"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
