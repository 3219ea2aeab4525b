"""Makes one artifact, in a process of its own: ``python -m serving.artifacts.build``.

Reads a ``BuildOrder`` as one line of JSON and fills the folder that it names; the manifest is the
last file. What libraries print goes to the standard error. The process ends if its input ends
before it is done, so that it lives no longer than the one that asked for it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

from serving.artifacts.calibration import (
    calibration_batches,
    calibration_texts,
    example_batch,
    read_held_out,
    read_inputs,
    remarks,
)
from serving.artifacts.manifest import (
    TASK_FOLDER,
    WEIGHTS_FOLDER,
    Manifest,
    list_files,
    write_manifest,
)
from serving.artifacts.measuring import measure_agreement, require_floor
from serving.artifacts.order import FAILED, REFUSED, BuildOrder
from serving.artifacts.request import ArtifactRequest
from serving.errors import MayPass, QuantserveError
from serving.machine.process_memory import peak_resident_bytes
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.runtimes.torch.expanding import as_floats
from serving.runtimes.torch.merging import with_merged
from serving.seams import Arrays, EncoderTask, Head, PreparedAgreement, PrepareRequest
from serving.tasks import TASKS

NO_LIMIT = 1_000_000
"""Tokens: where a checkpoint names a limit, that one holds; the configuration's is a replica's."""

NICENESS = 5
"""Whoever is being served on the same cores comes first."""

AUTOGROUP = Path("/proc/self/autogroup")
"""Niceness of this session's processes together, where the kernel groups by session (sched(7))."""


def build(order: BuildOrder) -> None:
    """Make an artifact in ``order.folder``.

    Raises:
        ConfigError: The checkpoint does not fit the task, or cannot be converted, or what comes
            of it agrees less with its reference than its floor asks for.
    """
    started = time.perf_counter()
    request = order.request
    notes: list[str] = []
    task_folder, weights_folder = order.folder / TASK_FOLDER, order.folder / WEIGHTS_FOLDER
    task_folder.mkdir()
    weights_folder.mkdir()
    entry = TASKS[request.task]
    entry.prepare(request.checkpoint, task_folder)
    head: Head | None = None
    example: Arrays = {}
    calibration: list[Arrays] = []
    if entry.kind == "encoder":
        task: EncoderTask = entry.open(task_folder, NO_LIMIT)
        head, example = task.head, example_batch(task, entry.read_probes(None))
        if request.calibration is not None:
            inputs = read_inputs(request.task, request.calibration)
            calibration = calibration_batches(task, inputs)
            notes.extend(remarks(request.calibration, len(inputs)))
    elif request.calibration is not None:
        inputs = read_inputs(request.task, request.calibration)
        calibration = calibration_texts(entry.open(task_folder, NO_LIMIT), inputs)
        notes.extend(remarks(request.calibration, len(inputs)))
    with (
        as_floats(request.checkpoint, order.folder) as floats,
        with_merged(floats, request.adapter, order.folder) as checkpoint,
    ):
        prepared = RUNTIMES[request.runtime].prepare(
            PrepareRequest(
                checkpoint=checkpoint,
                recipe=request.recipe,
                options=RECIPES[request.recipe].options(**request.options),
                kind=entry.kind,
                head=head,
                device=order.key.device,
                threads=order.threads,
                example=example,
                calibration=calibration,
                folder=weights_folder,
                quantized=None if floats is request.checkpoint else request.checkpoint,
                adapter=_kept_beside(request),
            )
        )
    calibration.clear()  # its memory is wanted by the models that are compared
    agreement = _measure(order)
    files = list_files(order.folder)
    write_manifest(
        order.folder,
        Manifest(
            key=order.key,
            made_for=request.name,
            source=str(request.checkpoint.folder / (request.checkpoint.gguf_file or "")),
            created=datetime.now(UTC),
            seconds=time.perf_counter() - started,
            peak_bytes=peak_resident_bytes(),
            weights_bytes=prepared.weights_bytes,
            notes=(*notes, *prepared.notes),
            files=files,
            agreement=agreement,
        ),
    )


def _kept_beside(request: ArtifactRequest) -> Path | None:
    """Folder of the adapter that the runtime keeps beside the weights; None if it has none."""
    adapter = request.adapter
    return adapter.folder if adapter is not None and adapter.place == "beside" else None


def _measure(order: BuildOrder) -> PreparedAgreement | None:
    """Hold what was made to its floor; None if it has none."""
    request, floor = order.request, order.request.floor
    if floor is None:
        return None
    assert order.reference is not None
    inputs = read_held_out(request.task, floor.origin)
    agreement = measure_agreement(request, order.folder, order.reference, inputs, order.threads)
    require_floor(agreement, floor, "nothing is installed")
    return agreement


def main() -> int:
    """Do what standard input orders; returns the exit status."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _give_way()
    order = BuildOrder.model_validate_json(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        build(order)
    except QuantserveError as error:
        output.write(str(error))
        status = FAILED if isinstance(error, MayPass) else REFUSED
    except Exception as error:  # converters raise anything; all of it is the artifact's failure
        traceback.print_exc()
        output.write(f"{type(error).__name__}: {error}")
        status = FAILED
    else:
        status = 0
    output.close()
    sys.stderr.flush()
    return status


def _give_way() -> None:
    os.nice(NICENESS)
    # Linux weighs sessions before processes where it groups by session, and this is one of its own.
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text(str(NICENESS), encoding="ascii")


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(FAILED)


if __name__ == "__main__":
    # Threads that libraries leave behind must not keep a process alive that has done its work.
    os._exit(main())
