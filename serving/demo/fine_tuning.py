"""Fine-tunes the demo's classifier, encoder and head, on the grids of a recipe or on none.

Quantization-aware training: every step computes with the weights, and for ``int8`` the inputs, as
the recipe will round them, so that the weights settle where rounding costs little. Fine-tuning
alone makes the classifier better, with grids or without; ``none`` is there to tell the two apart.

The settings are usual ones for encoders of this size; they were not searched, and the held-out
sentences are not looked at.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from serving.artifacts.calibration import example_batch
from serving.demo.prepare import demo_directory, prepare_sentiment, swap_in
from serving.demo.reviews import Review
from serving.runtimes.torch.fake_quantization import RoundedView
from serving.runtimes.torch.model_inputs import as_tensors
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Arrays, Checkpoint, EncoderTask
from serving.tasks import TASKS

FOLDERS = {"none": "sentiment-tuned", "int8": "sentiment-qat-int8", "int4": "sentiment-qat-int4"}
"""Checkpoints beside the demo's own, by what is rounded while they are trained."""

RECIPES = {"int8": "int8-dynamic", "int4": "int4"}

SEED = 0
EPOCHS = 1
BATCH_TEXTS = 32
LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.01
WARM_UP = 0.1
LARGEST_GRADIENT = 1.0

LOOK_STEPS = 25
"""Between looks at how strongly inputs are driven, which changes slowly, and between reports."""

MOST_TEXTS = 2_700
"""Every third of the 8,082 sentences; with all of them it takes three times as long."""

SORTED_BATCHES = 16
"""So many batches are drawn at once and parted by length, or most of their tokens were padding."""


def fine_tune(
    reviews: Sequence[Review], rounding: str, report: Callable[[int, int, float], None]
) -> Path:
    """Train on ``reviews`` and write a checkpoint of float32 weights; returns its folder.

    Args:
        reviews: Their ratings are the targets, as of ``train_head``.
        rounding: ``int8``, ``int4`` or ``none``: what the model computes with meanwhile.
        report: Called now and then with the steps that are done, all of them, and the mean loss of
            those since it was called last.

    Raises:
        SourceError: MiniLM's package is not installed, or a folder cannot be written.
    """
    source = prepare_sentiment(demo_directory())
    model = load_pretrained(
        Checkpoint(source), "AutoModelForSequenceClassification", torch.float32
    ).requires_grad_(True)
    with tempfile.TemporaryDirectory() as files:
        TASKS["classification"].prepare(Checkpoint(source), Path(files))
        task: EncoderTask = TASKS["classification"].open(Path(files), None)
        train(model, task, reviews, rounding, report)
    folder = demo_directory() / FOLDERS[rounding]
    _write(model, source, folder)
    return folder


def train(
    model: nn.Module,
    task: EncoderTask,
    reviews: Sequence[Review],
    rounding: str,
    report: Callable[[int, int, float], None],
) -> None:
    """Train a float32 classifier in place; see ``fine_tune``.

    Args:
        model: Of transformers, on the CPU; its tables of embeddings are not trained.
        task: Of the same checkpoint.
        reviews: As of ``fine_tune``, likewise ``rounding`` and ``report``.
    """
    torch.manual_seed(SEED)
    reviews = reviews[:: -(-len(reviews) // MOST_TEXTS)]
    view = _view(model, task, rounding)
    trained = view.rounded if view else model
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * -(-len(reviews) // BATCH_TEXTS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=WARM_UP
    )
    since_report: list[float] = []
    trained.train()
    for step, (batch, targets) in enumerate(_batches(task, reviews), start=1):
        optimizer.zero_grad()
        logits: Tensor = trained(**as_tensors(batch, "cpu")).logits
        loss = nn.functional.cross_entropy(logits, targets)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        since_report.append(loss.item())
        if step % LOOK_STEPS == 0 or step == steps:
            if view:
                view.look_at_inputs()
            report(step, steps, sum(since_report) / len(since_report))
            since_report.clear()
    trained.eval()


def _view(model: nn.Module, task: EncoderTask, rounding: str) -> RoundedView | None:
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.requires_grad_(False)
    if rounding == "none":
        return None
    # The batch in which preparing looks how strongly inputs are driven.
    example = example_batch(task, TASKS["classification"].read_probes(None))
    return RoundedView(model, RECIPES[rounding], example)


def _batches(task: EncoderTask, reviews: Sequence[Review]) -> Iterator[tuple[Arrays, Tensor]]:
    """Every review once in each epoch, in another order, with its probability of each label."""
    items = task.prepare([review.text for review in reviews], True)
    positive = torch.sigmoid(torch.tensor([review.rating for review in reviews]))
    targets = torch.stack([1 - positive, positive], dim=1)
    for _ in range(EPOCHS):
        order: list[int] = torch.randperm(len(items)).tolist()
        for drawn in _parts(order, SORTED_BATCHES * BATCH_TEXTS):
            parts = _parts(sorted(drawn, key=lambda row: items[row].cost), BATCH_TEXTS)
            for place in torch.randperm(len(parts)).tolist():
                rows = parts[place]
                yield task.collate([items[row] for row in rows]), targets[rows]


def _parts(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _write(model: nn.Module, source: Path, folder: Path) -> None:
    """Put a copy of ``source`` with other weights in the place of ``folder``."""
    tensors = load_file(source / "model.safetensors")
    tensors |= {name: one.detach().contiguous() for name, one in model.named_parameters()}
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        fresh = Path(scratch, "fresh")
        shutil.copytree(source, fresh, ignore=shutil.ignore_patterns("*.safetensors", "prepared.*"))
        save_file(tensors, fresh / "model.safetensors", {"format": "pt"})
        swap_in(fresh, folder, retired=Path(scratch, "retired"))
