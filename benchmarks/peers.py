"""llama.cpp or OpenVINO GenAI, generating round by round, so as to be measured beside ours.

Run with the Python of an environment that has the peer; it imports nothing of this project::

    CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --no-binary llama-cpp-python \\
        llama-cpp-python openvino-genai
    python benchmarks/peers.py llama.cpp model.gguf --prompts prompts.json --threads 2

The prompts file is a JSON list of lists of token ids, so that all engines get the same prompts.
The model is loaded once and the first line printed tells the conditions. Then every line read from
stdin names a number of streams; that many prompts are generated from at once and one line of JSON
is printed. So a caller can alternate rounds between processes that each keep their model loaded.
The first round of each number of streams compiles and allocates: leave it out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import islice
from typing import Protocol

Prompts = list[list[int]]


class Peer(Protocol):
    """An engine with its model loaded, room for all prompts at once."""

    def conditions(self) -> dict[str, object]:
        """Versions and settings, as the engine itself reports them where it can."""

    def steps(self, prompts: Prompts) -> Iterator[list[int]]:
        """At each step one greedy token for every prompt; the first step is the prefill.

        An end-of-text token ends nothing.
        """


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("gguf")
    parser.add_argument("--prompts", required=True, help="JSON file: a list of lists of token ids")
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with open(arguments.prompts, encoding="utf-8") as file:
        prompts: Prompts = json.load(file)
    peer = PEERS[arguments.peer](arguments.gguf, prompts, arguments.new_tokens, arguments.threads)
    report({"peer": arguments.peer, "threads": arguments.threads, **peer.conditions()})
    for line in sys.stdin:
        report(measure(peer, prompts[: int(line)], arguments.new_tokens))


def report(record: dict[str, object]) -> None:
    print(json.dumps(record), flush=True)


def measure(peer: Peer, prompts: Prompts, new_tokens: int) -> dict[str, object]:
    """Times of one round in seconds; rates in tokens/s, summed over the streams.

    ``decode_tokens_per_s`` counts the tokens after the first, ``tokens_per_s`` the whole round.
    ``tokens`` are the ids generated for each prompt.
    """
    started = time.perf_counter()
    moments, tokens = [], []
    for step in islice(peer.steps(prompts), new_tokens):
        moments.append(time.perf_counter())
        tokens.append(step)
    first, last = moments[0] - started, moments[-1] - started
    per_token = (last - first) / max(new_tokens - 1, 1)
    return {
        "streams": len(prompts),
        "prompt_tokens": [len(prompt) for prompt in prompts],
        "new_tokens": len(tokens),
        "time_to_first_token_s": first,
        "time_per_output_token_s": per_token,
        "decode_tokens_per_s": len(prompts) / per_token if per_token else None,
        "tokens_per_s": len(prompts) * len(tokens) / last,
        "tokens": list(zip(*tokens, strict=True)),
    }


class LlamaCpp:
    """llama.cpp's batch API: one ``llama_decode`` a step for all sequences."""

    def __init__(self, gguf: str, prompts: Prompts, new_tokens: int, threads: int) -> None:
        import llama_cpp

        self._api = llama_cpp
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(
            gguf.encode(), llama_cpp.llama_model_default_params()
        )
        if not model:
            raise SystemExit(f"llama.cpp cannot read {gguf}")
        prompt_tokens = sum(map(len, prompts))
        settings = llama_cpp.llama_context_default_params()
        settings.n_threads = settings.n_threads_batch = threads
        settings.n_seq_max = len(prompts)
        settings.n_batch = prompt_tokens
        # Split into equal shares, a sequence each: faster at 8 sequences than one unified cache.
        settings.kv_unified = False
        settings.n_ctx = len(prompts) * (max(map(len, prompts)) + new_tokens)
        self._context = llama_cpp.llama_init_from_model(model, settings)
        self._batch = llama_cpp.llama_batch_init(prompt_tokens, 0, 1)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def conditions(self) -> dict[str, object]:
        return {
            "llama-cpp-python": version("llama-cpp-python"),
            "system": self._api.llama_print_system_info().decode().strip(),
        }

    def steps(self, prompts: Prompts) -> Iterator[list[int]]:
        self._api.llama_memory_clear(self._api.llama_get_memory(self._context), False)
        positions = [0] * len(prompts)
        inputs = prompts
        while True:
            tokens = self._decode(inputs, positions)
            yield tokens
            positions = [at + len(ids) for at, ids in zip(positions, inputs, strict=True)]
            inputs = [[token] for token in tokens]

    def _decode(self, inputs: Prompts, positions: list[int]) -> list[int]:
        """Feed each sequence its ids from its position on; the likeliest next token of each."""
        import numpy as np

        batch, size, ends = self._batch, 0, []
        for sequence, (ids, start) in enumerate(zip(inputs, positions, strict=True)):
            for position, token in enumerate(ids, start):
                batch.token[size] = token
                batch.pos[size] = position
                batch.n_seq_id[size] = 1
                batch.seq_id[size][0] = sequence
                batch.logits[size] = position + 1 == start + len(ids)
                size += 1
            ends.append(size - 1)
        batch.n_tokens = size
        if status := self._api.llama_decode(self._context, batch):
            raise SystemExit(f"llama_decode of {size} tokens returned {status}")
        logits = (self._api.llama_get_logits_ith(self._context, end) for end in ends)
        shape = (self._vocab_size,)
        return [int(np.ctypeslib.as_array(row, shape).argmax()) for row in logits]


class OpenVinoGenAI:
    """OpenVINO GenAI's continuous batching, stepped by hand; it reads the GGUF itself."""

    def __init__(self, gguf: str, prompts: Prompts, new_tokens: int, threads: int) -> None:
        import openvino_genai

        self._genai = openvino_genai
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = sum(map(len, prompts))
        scheduler.max_num_seqs = len(prompts)
        scheduler.cache_size = 1  # GiB
        # A repeated prompt must cost its prefill in every round, as it does in the other engines.
        scheduler.enable_prefix_caching = False
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            gguf, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads}
        )
        self._settings = openvino_genai.GenerationConfig(
            max_new_tokens=new_tokens, ignore_eos=True, do_sample=False
        )

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

    def steps(self, prompts: Prompts) -> Iterator[list[int]]:
        import numpy as np
        from openvino import Tensor

        requests = [
            self._pipeline.add_request(index, Tensor(np.array([ids])), self._settings)
            for index, ids in enumerate(prompts)
        ]
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            (outputs,) = zip(*(request.read().values() for request in requests), strict=True)
            yield [output.generated_ids[-1] for output in outputs]


PEERS: dict[str, type[LlamaCpp] | type[OpenVinoGenAI]] = {
    "llama.cpp": LlamaCpp,
    "openvino-genai": OpenVinoGenAI,
}

if __name__ == "__main__":
    main()
