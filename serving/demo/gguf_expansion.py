"""Write a GGUF file as a folder of safetensors, its numbers expanded to float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from serving.seams import Checkpoint


def expand(checkpoint: Checkpoint, folder: Path) -> None:
    """Write model and tokenizer of a GGUF file to ``folder``, as transformers reads them."""
    source: dict[str, Any] = {"gguf_file": checkpoint.gguf_file, "local_files_only": True}
    model: Any = AutoModelForCausalLM.from_pretrained(
        checkpoint.folder, dtype=torch.float32, **source
    )
    # It would be saved as a quantized model, and looked for as one.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(checkpoint.folder, **source).save_pretrained(folder)
