"""Finds an artifact or has it made, by one process of all that want it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from serving.artifacts.identity import key_of
from serving.artifacts.key import ArtifactKey
from serving.artifacts.measuring import require_floor
from serving.artifacts.order import REFUSED, BuildOrder
from serving.artifacts.request import ArtifactRequest
from serving.artifacts.store import Artifact, ArtifactStore
from serving.errors import ConfigError, DamagedArtifact, MayPass
from serving.machine.cores import available_cores

POLL_S = 0.1

logger = logging.getLogger(__name__)


def ensure(request: ArtifactRequest, store: ArtifactStore) -> Artifact:
    """Return the artifact that a request means on this machine, made first if there is none.

    Raises:
        ConfigError: It cannot be made, or agrees less with its reference than its floor asks for.
        MayPass: It could not be made this time: the machine lacks something, or a process ended.
        SourceError: The source is missing or damaged.
    """
    return ensure_key(request, key_of(request, store), store)


def ensure_key(
    request: ArtifactRequest,
    key: ArtifactKey,
    store: ArtifactStore,
    threads: int | None = None,
    stop: threading.Event | None = None,
    on_wait: Callable[[], None] = lambda: None,
    on_start: Callable[[], None] = lambda: None,
) -> Artifact:
    """Likewise with a key that is known, for a caller that reports what happens.

    Args:
        request: What is asked for.
        key: What it means on this machine.
        store: Where artifacts are.
        threads: Intra-op threads that preparing may use; every core if None.
        stop: Ends waiting and making.
        on_wait: Called if another process is making the artifact.
        on_start: Called when this one begins to.

    Raises:
        ConfigError, MayPass: As of ``ensure``.
        InterruptedError: ``stop`` was set.
    """
    stop = stop or threading.Event()
    with _failure_of(request):
        # Damage is said by whoever makes it anew, once nobody else does.
        with contextlib.suppress(DamagedArtifact):
            if (found := store.find(key)) is not None:
                return _held_to_floor(found, request)
        with store.lock(key.id, stop, on_wait):
            if (found := _find(key, store)) is not None:
                return _held_to_floor(found, request)
            on_start()
            reference = _ensure_reference(request, store, threads, stop)
            store.discard(key.id)
            with store.new_folder(key.id) as folder:
                order = BuildOrder(
                    request=request,
                    key=key,
                    folder=folder,
                    threads=threads or available_cores(),
                    reference=reference,
                )
                _build_apart(order, store.log_file(key.id), stop)
        made = store.look_up(key.id)
        assert made is not None  # or building had raised
        return made


@contextlib.contextmanager
def _failure_of(request: ArtifactRequest) -> Iterator[None]:
    """Name what failed; what the system refuses, such as one more process, may pass."""
    try:
        yield
    except ConfigError as error:
        raise type(error)(f"{request.name}: {error}") from None
    except InterruptedError:  # an OSError, too
        raise
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        raise MayPass(
            f"{request.name}: it could not be prepared: {where}{error.strerror or error}"
        ) from error


def _ensure_reference(
    request: ArtifactRequest, store: ArtifactStore, threads: int | None, stop: threading.Event
) -> Path | None:
    """Folder of the artifact that a new one must agree with; None without a floor."""
    if request.floor is None:
        return None
    reference = request.floor.reference
    try:
        return ensure_key(reference, key_of(reference, store), store, threads, stop).folder
    except ConfigError as error:
        raise type(error)(f"what min_agreement compares it with: {error}") from None


def _held_to_floor(found: Artifact, request: ArtifactRequest) -> Artifact:
    """Return an artifact that is there, unless it is below a floor that was raised since."""
    agreement = found.manifest.agreement
    if request.floor is not None and agreement is not None:
        require_floor(agreement, request.floor, "what is in the store is not served")
    return found


def _find(key: ArtifactKey, store: ArtifactStore) -> Artifact | None:
    try:
        return store.find(key)
    except DamagedArtifact as error:
        logger.warning("%s; it is made anew", error)
        return None


def _build_apart(order: BuildOrder, log_file: Path, stop: threading.Event) -> None:
    """Run ``serving.artifacts.build`` in a process of its own; its log stays if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(order.threads)}
    with (
        log_file.open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "serving.artifacts.build"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            bufsize=0,
            # Ctrl-C reaches this process, which ends that one.
            start_new_session=True,
        ) as process,
    ):
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            # Whoever died before it read this is described below.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(order.model_dump_json().encode() + b"\n")
            _wait(process, stop)
            said = process.stdout.read().decode()
        except InterruptedError:
            log_file.unlink(missing_ok=True)
            raise
        finally:
            process.kill()
    if process.returncode not in (0, REFUSED):
        end = _describe_end(process.returncode, said)
        raise MayPass(f"{end} ({log_file})")
    log_file.unlink(missing_ok=True)
    if process.returncode == REFUSED:
        raise ConfigError(said)


def _wait(process: subprocess.Popen[bytes], stop: threading.Event) -> None:
    while True:
        try:
            process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            if stop.is_set():
                raise InterruptedError from None
        else:
            return


def _describe_end(status: int, said: str) -> str:
    if status == -signal.SIGKILL:
        return "the process that prepares it was killed; is the memory enough?"
    if status < 0:
        return f"the process that prepares it crashed with {signal.Signals(-status).name}"
    return said or f"the process that prepares it ended with status {status}"
