"""From a quantized checkpoint to one of the float weights that it stands for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from serving.checkpoint import read_config, source_files, weight_files
from serving.checkpoint_json import QUANTIZATION_FILES, without_quantization
from serving.errors import SourceError
from serving.hub import WEIGHTS_INDEX
from serving.quantized_checkpoints.form import QuantizedForm, is_table
from serving.quantized_checkpoints.forms import form_of
from serving.quantized_checkpoints.layers import has_inputs_first
from serving.quantized_checkpoints.reading import read_layers, read_other_tensors
from serving.seams import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from serving.quantized_checkpoints.integer_weight import IntegerWeight

SHARD_BYTES = 2 * 2**30
"""Of a file of the expanded checkpoint: so much of it is in memory at once."""


@contextmanager
def as_floats(checkpoint: Checkpoint, beside: Path | None = None) -> Iterator[Checkpoint]:
    """A checkpoint whose weights are float numbers: itself, or an expanded copy meanwhile.

    Args:
        checkpoint: Of a form that is read, or not quantized.
        beside: Folder in which a copy may lie, four bytes for each number; None takes the system's
            for temporary files.

    Raises:
        SourceError: A layer lacks a part, or its parts do not go together; names it.
    """
    form = None if checkpoint.gguf_file else form_of(read_config(checkpoint))
    if form is None:
        yield checkpoint
        return
    with TemporaryDirectory(prefix="expanded-", dir=beside) as folder:
        _expand(checkpoint, *form, Path(folder))
        yield Checkpoint(Path(folder), None, checkpoint.trust_remote_code)


def _expand(
    checkpoint: Checkpoint, form: QuantizedForm, said: Mapping[str, Any], folder: Path
) -> None:
    weights = weight_files(checkpoint)
    for file in source_files(checkpoint):
        if file not in weights and file.name not in (WEIGHTS_INDEX, *QUANTIZATION_FILES):
            copy = folder / file.relative_to(checkpoint.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    config = without_quantization(read_config(checkpoint))
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    weights_of_model = _expanded_weights(weights, form, said, config)
    if not form.tells_shapes:
        weights_of_model = _in_shape(weights_of_model, folder, checkpoint.trust_remote_code)
    _write_shards(weights_of_model, folder)


def _write_shards(weights: Iterable[tuple[str, Tensor]], folder: Path) -> None:
    from safetensors.torch import save_file

    shard: dict[str, Tensor] = {}
    place: dict[str, str] = {}

    def write() -> None:
        # llama.cpp's converter overlooks files that are called otherwise.
        name = f"model-{len(set(place.values()))}.safetensors"
        save_file(shard, folder / name, {"format": "pt"})
        place.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, tensor in weights:
        shard[name] = tensor.contiguous()
        if sum(one.nbytes for one in shard.values()) > SHARD_BYTES:
            write()
    if shard:
        write()
    (folder / WEIGHTS_INDEX).write_text(json.dumps({"metadata": {}, "weight_map": place}), "utf-8")


def _expanded_weights(
    files: Iterable[Path],
    form: QuantizedForm,
    said: Mapping[str, Any],
    config: Mapping[str, Any],
) -> Iterator[tuple[str, Tensor]]:
    """Weights of quantized layers in float32, the other tensors as they are."""
    from serving.quantized_checkpoints.integer_weight import IntegerWeight

    yield from read_other_tensors(files, form)
    for layer, weight in read_layers(files, form, said):
        try:
            floats = weight.expanded() if isinstance(weight, IntegerWeight) else weight
        except (IndexError, RuntimeError) as error:
            raise SourceError(f"{layer}: its scales do not fit its integers: {error}") from error
        yield f"{layer}.weight", floats.T if has_inputs_first(layer, config) else floats


def _in_shape(
    weights: Iterable[tuple[str, Tensor]], folder: Path, trust_remote_code: bool
) -> Iterator[tuple[str, Tensor]]:
    """The same numbers in the shapes that the model has which ``config.json`` names."""
    from serving.runtimes.torch.pretrained import shapes_of_architecture

    shapes = shapes_of_architecture(folder, trust_remote_code)
    for name, weight in weights:
        try:
            yield name, weight.reshape(shapes.get(name, weight.shape))
        except RuntimeError as error:
            raise SourceError(f"{name}: its numbers do not fit the model: {error}") from error


def read_integers(checkpoint: Checkpoint) -> Iterator[tuple[str, IntegerWeight]]:
    """The quantized layers of a checkpoint, by their names; tables of embeddings left out.

    Args:
        checkpoint: Of a form whose layers are made of integers.

    Raises:
        SourceError: As of ``as_floats``, or a layer is not made of integers.
    """
    from serving.quantized_checkpoints.integer_weight import IntegerWeight

    form = form_of(read_config(checkpoint))
    assert form is not None, "the checkpoint is not quantized"
    for layer, weight in read_layers(weight_files(checkpoint), *form):
        if not isinstance(weight, IntegerWeight):
            raise SourceError(f"{checkpoint.folder}: {layer} is not made of integers")
        if not is_table(layer):
            yield layer, weight
