"""How torch makes each recipe's numbers. Adding one is a file here and an entry in the table."""

from __future__ import annotations

from serving.runtimes.torch.conversions.conversion import Conversion
from serving.table import Table

GROUP = "quantserve.torch_conversions"
"""Entry points of this group add conversions for recipes of other packages, by their names."""

CONVERSIONS = Table(
    "recipe of the runtime torch",
    Conversion,
    {
        "fp32": "serving.runtimes.torch.conversions.fp32:CONVERSION",
        "f16": "serving.runtimes.torch.conversions.f16:CONVERSION",
        "bf16": "serving.runtimes.torch.conversions.bf16:CONVERSION",
        "fp8": "serving.runtimes.torch.conversions.fp8:CONVERSION",
        "int8-dynamic": "serving.runtimes.torch.conversions.int8_dynamic:CONVERSION",
        "int8-static": "serving.runtimes.torch.conversions.int8_static:CONVERSION",
        "int8-outlier": "serving.runtimes.torch.conversions.int8_outlier:CONVERSION",
        "int4": "serving.runtimes.torch.conversions.int4:CONVERSION",
        "nf4": "serving.runtimes.torch.conversions.nf4:CONVERSION",
    },
    GROUP,
)
