"""From a checkpoint and a LoRA adapter to a checkpoint of the weights that both make together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from serving.checkpoint import source_files, weight_files, weight_shapes
from serving.lora_adapter import WEIGHTS as ADAPTER_WEIGHTS
from serving.lora_adapter import AdapterChanges, Update, read_changes
from serving.seams import Adapter, Checkpoint

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def with_merged(
    checkpoint: Checkpoint, adapter: Adapter | None, beside: Path | None = None
) -> Iterator[Checkpoint]:
    """A checkpoint to whose weights an adapter is added: itself without one, or a copy meanwhile.

    What stays beside the weights is not added here, but tensors that the adapter brings as a whole
    are there.

    Args:
        checkpoint: Of float numbers, in safetensors.
        adapter: What is added.
        beside: Folder in which a copy may lie; None takes the system's for temporary files.

    Raises:
        SourceError: As of ``read_changes``.
    """
    if adapter is None:
        yield checkpoint
        return
    changes = read_changes(adapter.folder, weight_shapes(checkpoint))
    updates = changes.updates if adapter.place == "merged" else ()
    with TemporaryDirectory(prefix="merged-", dir=beside) as folder:
        _write(checkpoint, adapter.folder, AdapterChanges(updates, changes.replaced), Path(folder))
        yield Checkpoint(Path(folder), None, checkpoint.trust_remote_code)


def _write(checkpoint: Checkpoint, adapter: Path, changes: AdapterChanges, folder: Path) -> None:
    from safetensors import safe_open

    weights = weight_files(checkpoint)
    for file in source_files(checkpoint):
        if file not in weights:
            copy = folder / file.relative_to(checkpoint.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt") as theirs:
        for file in weights:
            _write_weights(file, folder / file.relative_to(checkpoint.folder), theirs, changes)


def _write_weights(file: Path, copy: Path, theirs: Any, changes: AdapterChanges) -> None:
    """Copy one file of weights, changed; it is linked to if nothing of it changes."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(file, framework="pt") as held:
        names = set(held.keys())
    updates = [update for update in changes.updates if update.weight in names]
    replaced = {name: own for name, own in changes.replaced.items() if name in names}
    copy.parent.mkdir(parents=True, exist_ok=True)
    if not updates and not replaced:
        copy.symlink_to(file)
        return
    tensors = load_file(file)
    for update in updates:
        tensors[update.weight] = tensors[update.weight].float() + difference(update, theirs)
    for name, own in replaced.items():
        tensors[name] = theirs.get_tensor(own)
    save_file(tensors, copy, {"format": "pt"})


def difference(update: Update, theirs: Any) -> Tensor:
    """What an update adds to its weight, float32 in the shape that the base stores.

    Args:
        update: Of an adapter.
        theirs: Its opened file.
    """
    first, second = (theirs.get_tensor(name).float() for name in update.factors)
    product: Tensor = (second @ first).mul_(update.scale)
    return product.T if update.is_transposed else product
