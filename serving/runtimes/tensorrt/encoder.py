"""Run an engine as an encoder engine, on tensors of torch's on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorrt as trt
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from serving.errors import ConfigError, MayPass
from serving.runtimes.tensorrt.engine_files import ENGINE, FACTS, OUTPUT, EngineFacts
from serving.runtimes.torch.footprint import measure
from serving.runtimes.torch.model_inputs import as_tensors
from serving.runtimes.torch.pooling import pool
from serving.seams import Arrays, DeviceName, Footprint, Head, OpenRequest

_TYPES = {trt.DataType.FLOAT: torch.float32, trt.DataType.HALF: torch.float16}


class TensorRtEncoder:
    """An engine and a head.

    Args:
        engine: What TensorRT read.
        facts: Of it.
        head: What becomes of its output.

    Raises:
        MayPass: The GPU has no memory for it now.
    """

    device: DeviceName = "cuda"

    def __init__(self, engine: Any, facts: EngineFacts, head: Head) -> None:
        self._engine, self._facts, self._head = engine, facts, head
        self._context = engine.create_execution_context()
        if self._context is None:
            raise MayPass("TensorRT has no memory for the engine's intermediate results")
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._type = _TYPES[engine.get_tensor_dtype(OUTPUT)]

    def use_cores(self, cores: Sequence[int]) -> None:
        """Nothing of a pass is computed on them."""

    def forward(self, inputs: Arrays) -> NDArray[np.float32]:
        rows, tokens = inputs["input_ids"].shape
        if tokens > self._facts.max_tokens:
            raise ValueError(f"{tokens} tokens; the engine has {self._facts.max_tokens} at most")
        most = self._facts.max_rows
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            found = [
                self._forward({name: array[i : i + most] for name, array in inputs.items()})
                for i in range(0, rows, most)
            ]
            return torch.cat(found).cpu().numpy()

    def footprint(self) -> Footprint:
        # What TensorRT allocates, torch does not see.
        own = self._facts.weights_bytes + int(self._engine.device_memory_size_v2)
        around = measure(self._facts.weights_bytes, "cuda")
        return Footprint(
            weights_bytes=self._facts.weights_bytes,
            resident_bytes=own + around.resident_bytes,
            private_bytes=own + around.private_bytes,
            peak_bytes=own + around.peak_bytes,
        )

    def _forward(self, inputs: Arrays) -> torch.Tensor:
        contiguous = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        tensors = as_tensors(contiguous, "cuda")
        for name, tensor in tensors.items():
            self._context.set_input_shape(name, tuple(tensor.shape))
            self._context.set_tensor_address(name, tensor.data_ptr())
        shape = tuple(self._context.get_tensor_shape(OUTPUT))
        output = torch.empty(shape, dtype=self._type, device="cuda")
        self._context.set_tensor_address(OUTPUT, output.data_ptr())
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError("TensorRT could not run a pass; its log says why")
        both = SimpleNamespace(logits=output, last_hidden_state=output)
        return pool(self._head, both, tensors["attention_mask"])


def open_encoder(request: OpenRequest) -> TensorRtEncoder:
    """Make the engine. It is code: whoever opens it has compared it with its digest.

    Raises:
        ConfigError: The artifact is damaged, or was built on another GPU.
        MayPass: It cannot be read or opened now.
    """
    file, path = request.folder / FACTS, request.folder / ENGINE
    try:
        facts = EngineFacts.model_validate_json(file.read_bytes())
        content = path.read_bytes()
    except OSError as error:
        raise MayPass(f"{error.filename}: it cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(f"{file}: it cannot be read: {error}") from error
    if (gpu := torch.cuda.get_device_name()) != facts.gpu:
        raise ConfigError(f"{path}: it was built on {facts.gpu}, and this is {gpu}")
    if len(content) != facts.engine_bytes:
        raise ConfigError(f"{path}: it has {len(content)} bytes, not {facts.engine_bytes}")
    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(content)
    if engine is None:
        raise MayPass(f"{path}: TensorRT {trt.__version__} cannot read it")
    return TensorRtEncoder(engine, facts, request.head)
