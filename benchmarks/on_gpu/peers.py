"""Others on the same checkpoint and prompts: transformers' ``generate``, and vLLM."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.on_gpu.encoders import free_memory
from benchmarks.on_gpu.generators import NEW_TOKENS, STREAMS, random_prompts
from serving.seams import Checkpoint, DeviceName


def measure_generate(folder: Path, device: DeviceName) -> None:
    """Print tokens/s of static batches in bfloat16."""
    prompts, num_new = random_prompts(Checkpoint(folder), device), NEW_TOKENS[device]
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model = loaded.to(device)
    speeds = []
    for streams in STREAMS[device]:
        ids = torch.tensor(prompts[:streams], device=device)
        for count in (4, num_new):  # the first warms
            started = time.perf_counter()
            found = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            ).cpu()
            seconds = time.perf_counter() - started
        assert found.shape == (streams, ids.shape[1] + num_new)
        speeds.append(streams * num_new / seconds)
    print_speeds("transformers generate, bfloat16", speeds, device)
    del model
    free_memory(device)


def measure_vllm(folder: Path, device: DeviceName) -> None:
    """Print tokens/s of vLLM in bfloat16, if it is installed and there is a GPU."""
    if find_spec("vllm") is None or device != "cuda":
        print("vLLM is not installed" if device == "cuda" else "vLLM is for GPUs")
        return
    import vllm  # type: ignore[import-not-found, unused-ignore]

    prompts, num_new = random_prompts(Checkpoint(folder), device), NEW_TOKENS[device]
    model = vllm.LLM(
        str(folder), dtype="bfloat16", skip_tokenizer_init=True, gpu_memory_utilization=0.5
    )
    speeds = []
    for streams in STREAMS[device]:
        given = [{"prompt_token_ids": list(prompt)} for prompt in prompts[:streams]]
        for count in (4, num_new):
            sampling = vllm.SamplingParams(
                temperature=0, max_tokens=count, min_tokens=count, detokenize=False
            )
            started = time.perf_counter()
            model.generate(given, sampling, use_tqdm=False)
            seconds = time.perf_counter() - started
        speeds.append(streams * num_new / seconds)
    print_speeds("vLLM, bfloat16", speeds, device)


def print_speeds(what: str, speeds: list[float], device: DeviceName) -> None:
    pairs = zip(STREAMS[device], speeds, strict=True)
    told = ", ".join(f"{speed:.0f} at {streams}" for streams, speed in pairs)
    print(f"{what}: {told} streams (tokens/s)", flush=True)
