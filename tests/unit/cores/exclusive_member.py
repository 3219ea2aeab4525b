"""A member in a process of its own that has cores for itself; see ``test_exclusive``."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from serving.cores import exclusive
from tests.unit.cores.member import say


def main() -> None:
    """Take cores, say where this process's threads run, and keep them until input ends."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    exclusive.CLAIM_S = float(sys.argv[3])
    started = threading.Event()
    ended = threading.Event()

    def wait() -> None:
        started.set()
        ended.wait()

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    started.wait()
    try:
        cores = exclusive.ExclusiveCores(count, sorted(os.sched_getaffinity(0)), folder)
    except OSError as error:
        say(json.dumps({"error": str(error)}))
        return
    bound = [sorted(os.sched_getaffinity(thread)) for thread in (0, waiting.native_id or 0)]
    say(json.dumps({"cores": cores.take(), "bound": bound}))
    sys.stdin.readline()


if __name__ == "__main__":
    main()
