"""A Ray cluster of several nodes on one machine.

Each node has namespaces of its own, as containers have: a network with an address of its own, its
own processes, its own empty ``/tmp``. Files elsewhere, cores and memory are shared. Linux and root
only.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from serving.app.ray_environment import CLUSTER_SETTINGS

NETWORK = "10.213.77"
"""First three bytes of every node's address; the machine itself is 254."""

BRIDGE = f"qs-{os.getpid()}"
"""An interface's name has 15 letters at most. That of a dead node goes a moment after it."""

GCS_PORT = 6379
JOIN_S = 180
KILL_S = 30
POLL_S = 0.1

SET_UP = f"""
ip link set lo up && ip address add "$1/24" dev eth0 && ip link set eth0 up || exit 1
ip route add default via {NETWORK}.254
mount -t tmpfs -o mode=1777 tmpfs /tmp
shift
"$@" &
wait $!
"""
"""Run by the first process of a node, whose end is the end of all others."""


class NoNamespaces(RuntimeError):
    """This machine does not let us make namespaces or interfaces."""


@dataclass(frozen=True, slots=True)
class RayNode:
    """One node that runs.

    Attributes:
        address: Its IP address.
        first: Its first process.
        link: The machine's end of its network.
    """

    address: str
    first: psutil.Process
    link: str

    def kill(self) -> None:
        """End all of its processes at once, and return when they are gone.

        Its machine refuses connections from then on.
        """
        self.first.send_signal(signal.SIGKILL)
        # The kernel ends the others before it tells of the end of this one.
        self.first.wait(KILL_S)

    def unplug(self) -> None:
        """Let no packet through any more: nobody is told that it is gone."""
        _ip("link", "set", self.link, "down")

    def processes(self) -> list[psutil.Process]:
        """All that run on it."""
        return self.first.children(recursive=True)

    def command(self, *command: str) -> list[str]:
        """A command line that runs ``command`` on this node."""
        return ["nsenter", f"--target={self.first.pid}", "--net", "--mount", "--pid", *command]


@contextlib.contextmanager
def ray_nodes(
    count: int, log_folder: Path
) -> Iterator[tuple[Sequence[RayNode], Mapping[str, str]]]:
    """Start a cluster; the first node is its head.

    Args:
        count: Of nodes.
        log_folder: Where each node writes what ``ray start`` prints.

    Yields:
        The nodes, and the environment of what is to join them.

    Raises:
        NoNamespaces: As root on a usual Linux they can be made.
    """
    token = secrets.token_hex(32)
    environment = {**os.environ, **CLUSTER_SETTINGS, "RAY_AUTH_TOKEN": token}
    with _bridge(), contextlib.ExitStack() as running:
        nodes: list[RayNode] = []
        for index in range(count):
            address = f"{NETWORK}.{index + 1}"
            role = [f"--address={nodes[0].address}:{GCS_PORT}"] if nodes else []
            node = _node(index, address, role, environment, log_folder)
            nodes.append(running.enter_context(node))
            _wait_for_nodes(nodes, environment)
        yield nodes, environment


@contextlib.contextmanager
def _bridge() -> Iterator[None]:
    try:
        _ip("link", "add", BRIDGE, "type", "bridge")
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoNamespaces(f"no bridge can be made: {error}") from None
    try:
        _ip("address", "add", f"{NETWORK}.254/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        yield
    finally:
        _ip("link", "delete", BRIDGE)


@contextlib.contextmanager
def _node(
    index: int, address: str, role: Sequence[str], environment: Mapping[str, str], folder: Path
) -> Iterator[RayNode]:
    command = [sys.executable, "-m", "serving", "node", *role, "--"]
    command += [f"--node-ip-address={address}", "--num-cpus=2", "--object-store-memory=134217728"]
    command += [] if role else [f"--port={GCS_PORT}"]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    link = f"{BRIDGE}-{index}"
    # It outlives its processes, as a machine's network does: who asks a dead one is refused.
    _ip("netns", "add", link)
    _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", link)
    _ip("link", "set", link, "master", BRIDGE, "up")
    with (folder / f"node-{index}.log").open("wb") as log:
        process = subprocess.Popen(
            ["ip", "netns", "exec", link, *namespaces, "sh", "-c", SET_UP, "sh", address, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        yield RayNode(address, _first_of(process), link)
    finally:
        process.kill()  # --kill-child
        process.wait()
        _ip("netns", "delete", link)


def _first_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    """The one child of ``unshare``.

    Raises:
        psutil.NoSuchProcess: It has ended.
        NoNamespaces: ``unshare`` has, at once.
    """
    deadline = time.monotonic() + JOIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise psutil.NoSuchProcess(process.pid)
        for child in psutil.Process(process.pid).children():
            return child
        time.sleep(POLL_S)
    raise NoNamespaces("unshare has started nothing")


def _wait_for_nodes(nodes: Sequence[RayNode], environment: Mapping[str, str]) -> None:
    """Wait until Ray knows all of them."""
    deadline = time.monotonic() + JOIN_S
    command = nodes[0].command(sys.executable, "-m", "ray.scripts.scripts", "status")
    while True:
        said = subprocess.run(command, env=environment, capture_output=True, text=True).stdout
        if said.count(" node_") >= len(nodes):
            return
        assert time.monotonic() < deadline, f"{len(nodes)} nodes did not come up: {said}"
        time.sleep(POLL_S)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
