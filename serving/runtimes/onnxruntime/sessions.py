"""Sessions of ONNX Runtime, as every part of this runtime wants them."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from serving.errors import MayPass

ERRORS_ONLY = 3


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options of a session that shares the machine with others.

    Args:
        threads: Intra-op threads. They sleep while they wait: whoever spins takes the core from
            the replica that has work.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # An arena keeps the largest memory that any shape ever took, and plans of it for each shape.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    return options


def open_session(
    file: Path, options: onnxruntime.SessionOptions, without: tuple[str, ...] = ()
) -> onnxruntime.InferenceSession:
    """Load a graph on the CPU; its weights are mapped from the file beside it.

    Args:
        file: The graph.
        options: Of the session.
        without: Names of ONNX Runtime's optimizers to leave out.

    Raises:
        MayPass: It cannot be opened now, unless it is damaged or asks for an operation that this
            version has not: the library's errors do not tell these apart.
    """
    onnxruntime.disable_telemetry_events()
    try:
        return onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
        )
    except Exception as error:  # its own types share no base
        raise MayPass(f"{file}: ONNX Runtime cannot open it: {error}") from error
