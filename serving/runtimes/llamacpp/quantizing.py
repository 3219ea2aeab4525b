"""llama.cpp's own quantizer, and the types that it gives tensors."""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p, c_int32
from pathlib import Path
from typing import Any

from serving.errors import ConfigError
from serving.runtimes.llamacpp.library import load_library

_ROOM = 256
"""See ``library``."""

_NO_TYPE = 43
"""ggml's number of types, which stands for none in particular."""


class _QuantizeParameters(ctypes.Structure):
    _fields_ = (
        ("nthread", c_int32),
        ("ftype", c_int32),
        ("output_tensor_type", c_int32),
        ("token_embedding_type", c_int32),
        ("allow_requantize", c_bool),
        ("quantize_output_tensor", c_bool),
        ("_more", ctypes.c_ubyte * _ROOM),
    )


def quantize(source: Path, file: Path, mixture: int, threads: int) -> None:
    """Write a float32 GGUF file anew, its matrices quantized.

    Args:
        source: The float32 file.
        file: What to write.
        mixture: ``llama_ftype``: which types the tensors get.
        threads: Of the quantizer.

    Raises:
        ConfigError: The quantizer cannot; says why.
    """
    library = load_library()
    api = library.functions
    api.llama_model_quantize_default_params.restype = _QuantizeParameters
    api.llama_model_quantize.argtypes = [c_char_p, c_char_p, ctypes.POINTER(_QuantizeParameters)]
    api.llama_model_quantize.restype = ctypes.c_uint32
    parameters: Any = api.llama_model_quantize_default_params()
    assert parameters.output_tensor_type == _NO_TYPE, "another layout than is known here"
    parameters.nthread, parameters.ftype = threads, mixture
    source_name, file_name = str(source).encode(), str(file).encode()
    if api.llama_model_quantize(source_name, file_name, ctypes.byref(parameters)) != 0:
        raise ConfigError(f"llama.cpp cannot quantize it: {library.reason()}")
