"""Other engines, each in a process of ``benchmarks/peers.py`` with its model loaded."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.demo_generators import GGUF, MAX_RUNNING, MAX_TOKENS, SOURCE
from benchmarks.generation_ways import BenchmarkPrompt, MeasuredRound, through_http
from serving.app.ray_environment import KERNEL_THREADS
from serving.checkpoint import find_checkpoint

GGUF_PEERS = ("llama.cpp-server", "openvino-genai")
"""Those that one environment has, and that read the file that SmolLM2 comes as."""

VLLM = "vllm-server"
PEERS = (*GGUF_PEERS, VLLM)


@dataclass(slots=True)
class GenerationPeer:
    """A running peer.

    Attributes:
        name: Its name in ``PEERS``.
        url: Of its route for completions; None if it is measured in its own process.
        stdin: Where rounds are asked for.
        stdout: Where they are reported.
    """

    name: str
    url: str | None
    stdin: IO[str]
    stdout: IO[str]

    def measure(self, prompts: Sequence[BenchmarkPrompt]) -> MeasuredRound:
        if self.url is not None:
            return asyncio.run(through_http(self.url, prompts))
        print(json.dumps([prompt.token_ids for prompt in prompts]), file=self.stdin, flush=True)
        record: dict[str, Any] = json.loads(self.stdout.readline())
        return MeasuredRound(
            total=record["tokens_per_s"],
            decode=record["decode_tokens_per_s"],
            first=record["time_to_first_token_s"],
        )


@contextmanager
def running_peer(python: str, name: str, threads: int) -> Iterator[GenerationPeer]:
    """Start a peer, print its conditions, and end it afterwards.

    Args:
        python: Of an environment that has it.
        name: In ``PEERS``.
        threads: Of its kernels.
    """
    checkpoint = find_checkpoint("smollm2", SOURCE if name == VLLM else GGUF)
    model = checkpoint.folder / (checkpoint.gguf_file or "")
    command = [python, str(Path(__file__).with_name("peers.py")), name, str(model)]
    command += ["--threads", str(threads)]
    command += ["--streams", str(MAX_RUNNING), "--stream-tokens", str(MAX_TOKENS)]
    environment = {k: v for k, v in os.environ.items() if k not in KERNEL_THREADS}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        told = process.stdout.readline()
        if not told:
            raise SystemExit(
                f"the peer {name} does not start with {python}: see benchmarks/peers.py"
            )
        print(told.strip())
        yield GenerationPeer(name, json.loads(told).get("url"), process.stdin, process.stdout)
    finally:
        process.terminate()
        process.wait()
