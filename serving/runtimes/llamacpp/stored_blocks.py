"""The integers of a quantized checkpoint as blocks of a GGUF file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, Keys
from numpy.typing import NDArray

from serving.errors import ConfigError
from serving.quantized_checkpoints.integer_weight import IntegerWeight
from serving.runtimes.llamacpp.number_types import BLOCK

Kind = GGMLQuantizationType


@dataclass(frozen=True, slots=True)
class Blocks:
    """The rows of a layer.

    Attributes:
        kind: ``Q4_0`` or ``Q8_0``.
        rows: uint8 (outputs, bytes of a row).
    """

    kind: Kind
    rows: NDArray[np.uint8]


def write_blocks(whole: Path, file: Path, layers: Iterable[tuple[str, IntegerWeight]]) -> None:
    """Write a float32 GGUF file anew, with the checkpoint's integers where it has their numbers.

    The converter may write rows in another order. Each is found by its numbers: what it holds is,
    to the last bit, what the integers of some layer's row stand for.

    Args:
        whole: The float32 file.
        file: What to write.
        layers: By name, with their integers.

    Raises:
        ConfigError: No block holds a layer's integers and scales exactly, or the file has other
            numbers than they stand for; names the layer.
    """
    blocks: dict[str, Blocks] = {}
    places: dict[bytes, tuple[str, int]] = {}
    for layer, weight in layers:
        try:
            blocks[layer] = blocks_of(weight)
        except ValueError as error:
            raise ConfigError(
                f"{layer} {error}, as llama.cpp's blocks have. Take another recipe, or the runtime "
                "openvino"
            ) from None
        for index, row in enumerate(weight.expanded().numpy()):
            places[_digest(row)] = layer, index
    reader = GGUFReader(whole)
    writer = GGUFWriter(file, str(reader.fields[Keys.General.ARCHITECTURE].contents()))
    _copy_header(reader, writer)
    used: set[str] = set()
    for tensor in reader.tensors:
        found = [places.get(_digest(row)) for row in tensor.data] if tensor.data.ndim == 2 else []
        known = [place for place in found if place is not None]
        if not known or len(known) < len(found):
            writer.add_tensor(tensor.name, tensor.data)
            continue
        used.update(layer for layer, _ in known)
        rows = np.stack([blocks[layer].rows[index] for layer, index in known])
        writer.add_tensor(tensor.name, rows, raw_dtype=blocks[known[0][0]].kind)
    if missing := sorted(blocks.keys() - used):
        raise ConfigError(
            f"{missing[0]}: converted for llama.cpp it has other numbers than the checkpoint's "
            "integers stand for. Take another recipe, which is made of float numbers"
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def blocks_of(weight: IntegerWeight) -> Blocks:
    """Lay out a weight as ggml does; what comes out of it are the very same numbers.

    Raises:
        ValueError: That cannot be; says what the layer has.
    """
    groups, scales = weight.group_of.numpy(), weight.scales.numpy()
    per_block = groups.reshape(-1, BLOCK) if len(groups) % BLOCK == 0 else groups[:, None]
    if per_block.shape[1] != BLOCK or (per_block != per_block[:, :1]).any():
        raise ValueError(f"has no groups of whole blocks of {BLOCK} neighbours")
    half = 1 << (weight.bits - 1)
    centred = weight.codes.numpy() - (0 if weight.codes.min() < 0 else half)
    zeros = weight.zeros.numpy() - (0 if weight.codes.min() < 0 else half)
    if zeros.any():
        raise ValueError("has zeros that are not in the middle of its integers")
    with np.errstate(over="ignore"):
        short = scales.astype(np.float16)
    if (short.astype(np.float32) != scales).any():
        raise ValueError("has scales that float16 does not hold")
    blocks = centred.reshape(len(centred), -1, BLOCK)
    heads = short[:, per_block[:, 0], None].view(np.uint8)
    if weight.bits == 4:
        codes = (blocks + half).astype(np.uint8)
        tails = codes[..., : BLOCK // 2] | codes[..., BLOCK // 2 :] << 4
        kind = Kind.Q4_0
    else:
        tails, kind = blocks.astype(np.int8).view(np.uint8), Kind.Q8_0
    return Blocks(kind, np.concatenate([heads, tails], 2).reshape(len(blocks), -1))


def _copy_header(reader: GGUFReader, writer: GGUFWriter) -> None:
    for field in reader.fields.values():
        # The writer has these of its own.
        if field.name == Keys.General.ARCHITECTURE or field.name.startswith("GGUF."):
            continue
        kind, *_, last = (*field.types, field.types[-1])
        inner = last if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)


def _digest(row: NDArray[np.float32]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=16).digest()
