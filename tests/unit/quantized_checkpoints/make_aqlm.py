"""Makes the tiny checkpoints of AQLM's form with its own library.

Not run by the tests: it wants aqlm 1.1 in an environment of its own::

    python -m tests.unit.quantized_checkpoints.make_aqlm

Codes and codebooks are random: what is tested is how they are read, not how they are found.
"""

from __future__ import annotations

import torch
from aqlm.utils import _dequantize_weight, pack_int_data, unpack_int_data
from torch import Tensor, nn

from tests.unit.quantized_checkpoints.make_checkpoints import Tensors, write


def aqlm(name: str, codebooks: int, bits: int, group: tuple[int, int]) -> None:
    """Write a checkpoint with so many codebooks of rows for groups of (outputs, inputs)."""
    outputs_of_group, inputs_of_group = group

    def quantize(linear: nn.Linear) -> tuple[Tensors, Tensor]:
        outputs, inputs = linear.weight.shape
        groups = outputs // outputs_of_group, inputs // inputs_of_group
        codes = pack_int_data(torch.randint(0, 2**bits, (*groups, codebooks)), bits)
        rows = (torch.randn(codebooks, 2**bits, *group) * 0.1).half()
        scales = (torch.rand(groups[0], 1, 1, 1) + 0.5).half()
        weight = _dequantize_weight(unpack_int_data(codes, bits), rows.float(), scales.float())
        return {"codes": codes, "codebooks": rows, "scales": scales}, weight

    said = {
        "quant_method": "aqlm",
        "num_codebooks": codebooks,
        "nbits_per_codebook": bits,
        "out_group_size": outputs_of_group,
        "in_group_size": inputs_of_group,
        "linear_weights_not_to_quantize": ["lm_head.weight"],
    }
    write(name, said, quantize)


def main() -> None:
    aqlm("aqlm-two-of-8-bits", 2, 8, (1, 8))
    aqlm("aqlm-one-of-10-bits", 1, 10, (2, 4))


if __name__ == "__main__":
    main()
