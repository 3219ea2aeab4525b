"""What a process occupies, and what it shares with the one that it was forked from."""

from __future__ import annotations

import subprocess
import sys

BLOCK = 64 * 2**20
ROOM = 24 * 2**20
"""What an interpreter and the measurement itself may add."""

# A child reports before and after it writes to a block that its parent filled.
PROGRAM = f"""
import os
from serving.machine.process_memory import *
block = bytearray(os.urandom(1) * {BLOCK})
if os.fork() == 0:
    print(private_bytes(), resident_bytes(), peak_resident_bytes(), flush=True)
    block[::4096] = bytes(len(block[::4096]))
    print(private_bytes(), resident_bytes(), peak_resident_bytes(), flush=True)
    os._exit(0)
os.wait()
"""


def measure() -> list[list[int]]:
    """Private, resident and peak bytes of a fork that shares a block, and that has its own."""

    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    return [[int(number) for number in line.split()] for line in said.stdout.splitlines()]


def test_what_a_fork_shares_counts_by_its_share_and_not_as_private() -> None:
    (private, resident, _), (private_later, resident_later, _) = measure()
    assert private < ROOM
    assert BLOCK / 2 <= resident < BLOCK / 2 + ROOM
    assert BLOCK <= private_later < BLOCK + ROOM
    assert BLOCK <= resident_later < BLOCK + ROOM


def test_the_peak_is_never_below_what_is_resident() -> None:
    for _, resident, peak in measure():
        assert peak >= resident


def test_all_that_is_resident_counts_what_is_shared_and_its_peak_what_is_gone() -> None:
    program = f"""
import os
from serving.machine.process_memory import *
block = bytearray(os.urandom(1) * {BLOCK})
if os.fork() == 0:
    print(all_resident_bytes(), peak_all_resident_bytes(), flush=True)
    del block
    print(all_resident_bytes(), peak_all_resident_bytes(), flush=True)
    os._exit(0)
os.wait()
"""
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    numbers = [[int(number) for number in line.split()] for line in said.stdout.splitlines()]
    (before, peak), (after, later_peak) = numbers
    assert BLOCK <= before <= peak
    assert after < before - BLOCK / 2
    assert later_peak >= before
