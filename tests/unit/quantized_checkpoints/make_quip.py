"""Makes the tiny checkpoints of QuIP#'s form with its own code.

Not run by the tests: it wants a checkout of Cornell-RelaxML/quip-sharp (1d8f873) on
``PYTHONPATH``::

    PYTHONPATH=quip-sharp python -m tests.unit.quantized_checkpoints.make_quip

Codes and scales are random: what is tested is how they are read, not how they are found. The code
packs them and is the layer that multiplies with them; a layer's weight is what it makes of the unit
matrix. Its kernels are for GPUs. The one that unpacks is replaced by the codebook's rows for the
codes that were packed, the one that transforms by the product that its documentation gives. All
runs in float64, so that what the code rounds to float16 between its steps is not in the weights.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.unit.quantized_checkpoints.make_checkpoints import FOLDER, Tensors, tiny_model

SIZES = 12, 20, 28, 36, 52, 60, 108, 116, 124, 140, 156, 172
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "upgate_proj": ("up_proj", "gate_proj")}

unpacked: dict[bytes, Tensor] = {}
"""What the kernel would make of packed codes: the weights, by the codes' bytes."""


class Original(NamedTuple):
    """Its modules of codebooks and of layers, and the matrix of a size that is no power of two."""

    codebook: Any
    linear: Any
    get_matrix: Any


def import_original() -> Original:
    """Import its codebooks and layers, with what stands in for its kernels.

    Its package of helpers wants libraries that evaluate models; of it only the transforms are
    taken.
    """
    lib: Any = import_module("lib")
    utils: Any = ModuleType("lib.utils")
    utils.__path__ = [str(Path(lib.__path__[0]) / "utils")]
    utils.clean = lambda: None
    utils.dtype_from_str = {"torch.int64": torch.int64}.__getitem__
    lib.utils = utils
    kernels: Any = ModuleType("quiptools_cuda")
    kernels.decompress_packed_e8p = lambda codes, table: unpacked[codes.numpy().tobytes()]
    kernels.decompress_e81b_packed = lambda codes, table, out: out.copy_(
        unpacked[codes.numpy().tobytes()]
    )
    fast: Any = ModuleType("fast_hadamard_transform")
    fast.hadamard_transform = lambda x, scale: x @ sylvester(x.shape[-1]).to(x.dtype) * scale
    sys.modules |= {
        "lib.utils": utils,
        "quiptools_cuda": kernels,
        "fast_hadamard_transform": fast,
    }
    utils.get_hadK = import_module("lib.utils.matmul_had").get_hadK
    codebook = import_module("lib.codebook")
    torch.library.impl("quip_lib::decompress_packed_e8p", "cpu")(
        lambda codes, table, m, n: kernels.decompress_packed_e8p(codes, table)
    )
    return Original(codebook, import_module("lib.linear.fused_quantized_linear"), utils.get_hadK)


def sylvester(size: int) -> Tensor:
    """Where the bits that a row's and a column's number have in common are odd in number, -1."""
    numbers = range(size)
    return torch.tensor([[(-1.0) ** (row & one).bit_count() for one in numbers] for row in numbers])


@contextmanager
def in_float64() -> Iterator[None]:
    """Meanwhile whoever names another type of floats gets float64."""
    wide = torch.float64
    with (
        patch.multiple(torch, float16=wide, float32=wide),
        patch.object(Tensor, "float", Tensor.double),
    ):
        yield


def random_codes(codebook: Any, outputs: int, inputs: int) -> Tensor:
    """Codes as the code packs them; what they stand for is kept in ``unpacked``."""
    size = outputs, inputs // 8
    first = torch.randint(2**16, size)
    packed_codes, points = first, [codebook.grid[first]]
    if hasattr(codebook, "opt_resid_scale"):
        table = getattr(codebook, "e81b_grid", codebook.grid)
        residual = torch.randint(len(table), size)
        packed_codes = (first << 16) + residual
        points.append(table[residual])
    packed: Tensor = codebook.maybe_pack_idxs(packed_codes.clone())
    split = size[1] // 4
    for words, weights in zip((packed[:, :split], packed[:, split:]), points, strict=False):
        unpacked[words.contiguous().numpy().tobytes()] = weights.flatten(1).double()
    return packed


def layer_parts(
    original: Original, said: dict[str, Any], outputs: int, inputs: int, fused: int
) -> Tensors:
    """Parts of a layer, in the types that the code saves them in."""
    codebook = original.codebook.get_codebook(said["codebook"])
    half = np.float16
    random = np.random.default_rng(outputs * inputs + fused)
    parts = {
        "SU": random.choice([-1.0, 1.0], inputs) * random.uniform(0.9, 1.1, inputs),
        "SV": random.choice([-0.1, 0.1], outputs) * random.uniform(0.9, 1.1, outputs),
        # 1 in what is made today.
        "Wscale": np.array(0.8),
    }
    if fused > 1:
        parts["fuse_scales"] = random.uniform(0.5, 1.5, fused)
    if said["rescale_WH"]:
        parts["scaleWH"] = random.uniform(0.5, 2, inputs)
    return {
        "Qidxs": random_codes(codebook, outputs, inputs),
        "codebook_id": torch.tensor(original.codebook.get_id(said["codebook"])),
        **{name: torch.from_numpy(np.asarray(part.astype(half))) for name, part in parts.items()},
    }


def weights_of(
    original: Original, said: dict[str, Any], parts: Tensors, outputs: list[int]
) -> list[Tensor]:
    """What the code's own layer multiplies with, of each of the layers that are one."""
    inputs = len(parts["SU"])
    arguments = (
        *(inputs, sum(outputs), said["codesz"], said["packsz"], False, said["idx_dtype"]),
        said["codebook_version"],
    )
    options = {
        "rank": said["lora_rank"],
        "rescale_WH": said["rescale_WH"],
        "resid_scale_override": said["resid_scale_override"],
    }
    with in_float64():
        layer = (
            original.linear.FusedQuantizedLinear(-1, outputs, *arguments, **options)
            if len(outputs) > 1
            else original.linear.QuantizedLinear(*arguments, **options)
        )
        layer.load_state_dict(parts)
        made = layer(torch.eye(inputs, dtype=torch.float64))
    return [one.T.float() for one in (made if isinstance(made, tuple) else (made,))]


def quip(
    original: Original, name: str, codebook_name: str, inner: int, key_heads: int, **options: Any
) -> None:
    """Write a checkpoint of one layer, whose feed-forward network is ``inner`` wide."""
    model, folder = tiny_model(inner, key_heads), FOLDER / name
    codebook = original.codebook.get_codebook(codebook_name)
    said = {
        "codebook": codebook_name,
        "codebook_version": codebook.version,
        "codesz": codebook.codesz,
        "idx_dtype": str(codebook.idx_dtype),
        "lora_rank": 0,
        "model_version": 1,
        "packsz": codebook.packsz,
        "resid_scale_override": -1,
        "rescale_WH": False,
        **options,
    }
    tensors: Tensors = {n: t.half() for n, t in model.state_dict().items()}
    expected: Tensors = {}
    block = "model.layers.0"
    for layer in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.upgate_proj", "mlp.down_proj"):
        room, _, last = f"{block}.{layer}".rpartition(".")
        names = [f"{room}.{one}.weight" for one in FUSED.get(last, (last,))]
        of_model = [tensors.pop(one) for one in names]
        outputs, inputs = [len(one) for one in of_model], of_model[0].shape[1]
        parts = layer_parts(original, said, sum(outputs), inputs, len(outputs))
        tensors |= {f"{block}.{layer}.{part}": tensor for part, tensor in parts.items()}
        expected |= dict(zip(names, weights_of(original, said, parts, outputs), strict=True))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors")
    save_file({n: t.contiguous() for n, t in expected.items()}, folder / "expected.safetensors")
    config = {**model.config.to_dict(), "architectures": ["LlamaForCausalLM"], "quip_params": said}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def write_digests(original: Original) -> None:
    """Of the codebooks, and of every matrix of the transforms whose size is no power of two."""
    codebook = original.codebook.get_codebook("E8P12RVQ3B")
    tables = {str(size): original.get_matrix(size)[0] for size in SIZES}
    # Quarters are whole numbers then.
    tables |= {"E8P": codebook.grid * 4, "E81B": codebook.e81b_grid * 4}
    digests = {
        name: hashlib.sha256(table.numpy().astype(np.int8).tobytes()).hexdigest()
        for name, table in tables.items()
    }
    (FOLDER.parent / "quip_tables.json").write_text(json.dumps(digests, indent=1) + "\n")


def main() -> None:
    original = import_original()
    write_digests(original)
    quip(original, "quip-2bit", "E8P12", 128, 1)
    # 192 inputs and outputs: 12 × 16; 384 = 12 × 32.
    quip(original, "quip-3bit", "E8P12RVQ3B", 192, 2, rescale_WH=True)
    # 320 = 20 × 16.
    quip(original, "quip-4bit", "E8P12RVQ4B", 320, 1, resid_scale_override=3.6)


if __name__ == "__main__":
    main()
