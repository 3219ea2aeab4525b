"""Replicas load by turns, in the order in which they came."""

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest

from serving.cores.byte_locks import ByteLocks
from serving.replica import loading_turn as module
from serving.replica.loading_turn import loading_turn, open_turns
from tests.unit.fakes.waiting import MAX_WAIT_S


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The node's folder; those who wait look again at once."""
    monkeypatch.setattr(module, "shared_folder", lambda: tmp_path)
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.001)
    return tmp_path


class Loaders:
    """Replicas that load until they are let go, and who of them does."""

    def __init__(self, num_turns: int) -> None:
        self._num_turns = num_turns
        self.loading: list[str] = []
        self.order: list[str] = []
        self._done: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Condition()

    async def load(self, name: str) -> None:
        self._done[name] = asyncio.Event()
        async with loading_turn(open_turns(), self._num_turns):
            self.order.append(name)
            self.loading.append(name)
            await self._notify()
            await self._done[name].wait()
            self.loading.remove(name)

    async def finish(self, name: str) -> None:
        self._done[name].set()

    async def wait_for(self, *names: str) -> None:
        async with self._changed, asyncio.timeout(MAX_WAIT_S):
            await self._changed.wait_for(lambda: sorted(self.loading) == sorted(names))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def test_as_many_load_at_once_as_there_are_turns_and_first_come_is_first_served() -> None:
    loaders = Loaders(num_turns=2)
    async with asyncio.TaskGroup() as group:
        for name in "abcde":
            group.create_task(loaders.load(name))
            await asyncio.sleep(0)  # it takes its place
        await loaders.wait_for("a", "b")
        await loaders.finish("b")
        await loaders.wait_for("a", "c")
        await loaders.finish("c")
        await loaders.wait_for("a", "d")
        await loaders.finish("a")
        await loaders.wait_for("d", "e")
        for name in "de":
            await loaders.finish(name)
    assert loaders.order == list("abcde")


async def test_one_that_fails_to_load_gives_its_turn_back() -> None:
    for _ in range(2):
        with contextlib.suppress(OSError):
            async with loading_turn(open_turns(), 1):
                raise OSError("disk")
    async with asyncio.timeout(MAX_WAIT_S), loading_turn(open_turns(), 1):
        pass


HOLDER = """
import sys, time
from pathlib import Path
from serving.cores.byte_locks import ByteLocks
locks = ByteLocks(Path(sys.argv[1]))
assert locks.try_lock(0)
print("held", flush=True)
time.sleep(60)
"""


async def test_the_turn_of_one_that_was_killed_goes_to_the_next(folder: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(folder / "loading")]
    holder = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    loaders = Loaders(num_turns=1)
    waiting = asyncio.create_task(loaders.load("a"))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert loaders.loading == []
    holder.kill()
    await holder.wait()
    await loaders.wait_for("a")
    await loaders.finish("a")
    await waiting


async def test_one_that_hangs_holds_the_others_up_for_a_while_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.01)
    hanging = ByteLocks(folder / "loading")
    assert hanging.try_lock(0)
    async with asyncio.timeout(MAX_WAIT_S), loading_turn(open_turns(), 1):
        pass
    hanging.close()


async def test_where_there_can_be_no_locks_everyone_loads_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> Path:
        raise PermissionError("it belongs to somebody else")

    monkeypatch.setattr(module, "shared_folder", refuse)
    assert open_turns() is None
    async with loading_turn(None, 1), loading_turn(None, 1):
        pass
