"""Make the artifact of a generator: a GGUF file, tried once."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader

from serving.errors import ConfigError, MayPass
from serving.runtimes.llamacpp.artifact_files import MODEL
from serving.runtimes.llamacpp.decoder import LlamaCppDecoder
from serving.runtimes.llamacpp.mixtures import MIXTURES
from serving.runtimes.llamacpp.quantizing import quantize
from serving.runtimes.llamacpp.tokenizer_check import compare_tokenizers
from serving.seams import Prepared, PrepareRequest, Segment

TRIED_TOKENS = 16


def prepare_generator(request: PrepareRequest) -> Prepared:
    """Write what ``opening.open_generator`` reads.

    Raises:
        ConfigError: llama.cpp cannot convert the checkpoint, or cannot run the result.
        SourceError: The checkpoint lacks weights.
    """
    file = request.folder / MODEL
    notes: tuple[str, ...] = ()
    if request.checkpoint.gguf_file is not None:
        _take_over(request.checkpoint.folder / request.checkpoint.gguf_file, file)
    else:
        notes = _make(request, file)
    return Prepared(_try_out(file, request.threads), (*notes, _number_types(file)))


def _make(request: PrepareRequest, file: Path) -> tuple[str, ...]:
    from serving.runtimes.llamacpp.conversion import check_converted, convert
    from serving.runtimes.llamacpp.stored_blocks import write_blocks
    from serving.runtimes.torch.expanding import read_integers
    from serving.runtimes.torch.pretrained import load_pretrained

    # Float32 whatever the checkpoint holds: no number is rounded twice.
    model = load_pretrained(request.checkpoint, "AutoModelForCausalLM", torch.float32)
    whole = file.with_name("float32.gguf")
    try:
        notes = convert(request.checkpoint, whole)
        check_converted(whole, model, request.threads)
        del model
        if request.quantized is not None and request.recipe == "stored":
            write_blocks(whole, file, read_integers(request.quantized))
        else:
            quantize(whole, file, MIXTURES[request.recipe].number, request.threads)
    finally:
        whole.unlink(missing_ok=True)
    return (*notes, *_tokenizer_notes(request, file))


def _tokenizer_notes(request: PrepareRequest, file: Path) -> tuple[str, ...]:
    original = request.checkpoint.folder / "tokenizer.json"
    has_tokenizer = "tokenizer.ggml.tokens" in GGUFReader(file).fields
    if not has_tokenizer or not original.is_file():
        return ()
    return (compare_tokenizers(file, original),)


def _take_over(source: Path, file: Path) -> None:
    """Give the file a second name in the artifact; copy it where that cannot be."""
    try:
        os.link(source.resolve(), file)
    except OSError:
        shutil.copyfile(source, file)


def _number_types(file: Path) -> str:
    """Say which types the file's numbers have, as shares of its bytes."""
    sizes: Counter[str] = Counter()
    for tensor in GGUFReader(file).tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_bytes)
    total = sum(sizes.values())
    shares = (f"{kind} {size / total:.1%}" for kind, size in sizes.most_common())
    return f"weights by type, as shares of their bytes: {', '.join(shares)}"


def _try_out(file: Path, threads: int) -> int:
    """Run some tokens, as a replica would; returns the size of the weights.

    Raises:
        ConfigError: It cannot be run, or its logits are not numbers.
    """
    try:
        decoder = LlamaCppDecoder(file, num_slots=1, slot_tokens=TRIED_TOKENS, threads=threads)
    except MayPass as error:  # of a file that nobody has opened before, it is a refusal
        raise ConfigError(str(error)) from error
    logits = decoder.step([Segment(0, 0, range(TRIED_TOKENS), TRIED_TOKENS)])
    if not np.isfinite(logits).all():
        raise ConfigError(f"{file.name}: its logits are not finite numbers; is it damaged?")
    return decoder.footprint().weights_bytes
