"""The table of runtimes. Adding one is a folder here and an entry in ``RUNTIMES``."""

from __future__ import annotations

from serving.seams import Runtime
from serving.table import Table

GROUP = "quantserve.runtimes"
"""Entry points of this group add runtimes from other packages."""

RUNTIMES = Table(
    "runtime",
    Runtime,
    {
        "torch": "serving.runtimes.torch.runtime:RUNTIME",
        "openvino": "serving.runtimes.openvino.runtime:RUNTIME",
        "onnxruntime": "serving.runtimes.onnxruntime.runtime:RUNTIME",
        "litert": "serving.runtimes.litert.runtime:RUNTIME",
        "tvm": "serving.runtimes.tvm.runtime:RUNTIME",
        "tensorrt": "serving.runtimes.tensorrt.runtime:RUNTIME",
        "llama.cpp": "serving.runtimes.llamacpp.runtime:RUNTIME",
    },
    GROUP,
)
