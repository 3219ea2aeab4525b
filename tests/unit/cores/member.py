"""A member in a process of its own that takes turns as fast as it may; see ``test_turn``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from serving.cores.turn import CoreTurn


def main() -> None:
    """Take turns until standard input ends; print how many, and the widest and the longest."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, default=2)
    parser.add_argument("--turns", type=int, required=True)
    parser.add_argument("--pass-s", type=float, default=0.002)
    parser.add_argument("--background", action="store_true")
    parser.add_argument("--hang", action="store_true", help="in the last turn, for ever")
    arguments = parser.parse_args()
    turn = CoreTurn(arguments.most, (0, 1), arguments.folder)
    say("ready")
    sys.stdin.readline()
    cores, waits, ends = [], [], []
    for _ in range(arguments.turns):
        asked = time.monotonic()
        cores.append(len(turn.take(arguments.background)))
        waits.append(time.monotonic() - asked)
        time.sleep(arguments.pass_s)
        ends.append(time.monotonic())
    if arguments.hang:
        say("holds")
        sys.stdin.readline()
    turn.give_back()
    say(json.dumps({"cores": cores, "waits": waits, "ends": ends}))


def say(line: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
